"""XDP in front of tc, on real taps: where it runs, why not elsewhere, and that all gets through as before.

a (tap)   b (tap)   c (veth)
  │         │         │           segment blue (VLAN 10)
┌─┴─────────┴─────────┴──┐
│  ta        tb       vc ├── up0 (a veth, with the fabric behind it)
└────────────────────────┘
"""

from __future__ import annotations

import os
import struct

import pytest

from support.lan import Lan, assert_connected
from vxagent.datapath import maps
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType
from vxagent.datapath.pins import Pins
from vxagent.lab.ping import Pinger
from vxagent.lab.tap import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, attach_tap
from vxagent.lab.vm import TapVm, VethVm
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

IFF_MULTI_QUEUE = 0x0100  # <linux/if_tun.h>
PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit

Vms = tuple[TapVm, TapVm, VethVm]


@pytest.fixture
def vms(lan: Lan) -> Vms:
    """Three VMs in segment blue."""
    lan.segment("blue", vlan=10)
    return lan.tap("ta", "blue"), lan.tap("tb", "blue"), lan.veth("vc", "blue")


def hook(lan: Lan, port: str) -> tuple[str, str]:
    """Where its program runs, and why not at XDP."""
    [row] = [row for row in lan.client.get("v1", "ports") if row["id"] == port]
    return row["hook"], row["hook_why"]


def program_at(lan: Lan, ifname: str) -> int | None:
    """The kernel's number of the program at a device's XDP hook."""
    number = lan.device(ifname).get("xdp", {}).get("prog", {}).get("id")
    return None if number is None else int(number)


def receives(lan: Lan, ifname: str) -> bool:
    """Whether XDP of other ports sends to a device."""
    wanted = struct.pack("=I", lan.device(ifname)["ifindex"])
    with_pin = Map.open(
        Pins(lan.agent.run_dir / "bpf").sets()[-1].map("xdp_devices"), maps.declare(maps.DEFAULT_SIZES)["xdp_devices"]
    )
    assert with_pin is not None
    with with_pin as devices:
        return any(devices.lookup(struct.pack("=I", handle)) == wanted for handle in range(1, 20))


def test_a_tap_has_xdp_and_a_veth_has_tc(lan: Lan, vms: Vms) -> None:
    assert [hook(lan, vm.port) for vm in vms] == [
        ("xdp+tc", ""),
        ("xdp+tc", ""),
        ("tc", "a device of kind veth: tc is the faster hook there"),
    ]
    assert [program_at(lan, vm.port) is not None for vm in vms] == [True, True, False]


def test_everything_gets_through_between_all_kinds_of_ports(lan: Lan, vms: Vms) -> None:
    a, b, c = vms
    for one, other in ((a, b), (b, c), (c, a)):
        assert_connected(one, other)


def test_a_port_can_be_switched_between_the_hooks_under_traffic(lan: Lan, vms: Vms) -> None:
    a, b, _ = vms
    assert_connected(a, b)
    pinger = Pinger(a.namespace, b.address, interval=0.005).start()
    for wanted in ("tc", "auto", "tc", "auto"):
        lan.agent.cli("port", "set", "ta", "--hook", wanted)
        assert (program_at(lan, "ta") is None) == (wanted == "tc")
    assert pinger.stop().lost == []
    assert hook(lan, "ta") == ("xdp+tc", "")


def test_a_port_that_asked_for_tc_says_so(lan: Lan, vms: Vms) -> None:
    lan.agent.cli("port", "set", "ta", "--hook", "tc")
    assert hook(lan, "ta") == ("tc", "asked for by --hook tc")
    a, b, _ = vms
    assert_connected(a, b)


def test_a_tap_of_several_queues_has_tc(lan: Lan) -> None:
    lan.segment("blue")
    fd = attach_tap(lan.switch, "tm", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)
    try:
        lan.agent.cli("port", "attach", "tm", "--segment", "blue")
        assert hook(lan, "tm") == ("tc", "a tap of several queues, of which XDP and tc choose differently")
        assert program_at(lan, "tm") is None
    finally:
        os.close(fd)


def test_somebody_elses_xdp_program_stays_and_the_port_has_tc(lan: Lan) -> None:
    lan.segment("blue")
    a, b = lan.tap("ta", None), lan.tap("tb", "blue")
    with Program.load(ProgSpec(name="theirs", type=ProgType.XDP, attach_type=AttachType.XDP), PASS) as theirs:
        with lan.switch.entered():
            foreign = Link.create(theirs, AttachType.XDP, lan.device("ta")["ifindex"], "ta")
        with foreign:
            lan.attach("ta", "blue")
            assert program_at(lan, "ta") == theirs.id
            assert hook(lan, "ta") == (
                "tc",
                "somebody else's XDP program runs there; take it off, and the switch's comes back by itself",
            )
            assert_connected(a, b)
            doctor = lan.agent.cli("doctor", check=False).stdout
            assert "device ta runs an XDP program of somebody else" in doctor
    lan.agent.cli("reload")
    assert hook(lan, "ta") == ("xdp+tc", "")
    assert_connected(a, b)


def test_a_device_that_is_shorter_than_its_segment_is_sent_to_by_tc_alone(lan: Lan, vms: Vms) -> None:
    a, b, _ = vms
    lan.agent.cli("segment", "set", "blue", "--mtu", "9000")
    assert_connected(a, b)
    assert not receives(lan, "tb")
    lan.agent.cli("segment", "set", "blue", "--mtu", "1500")
    assert receives(lan, "tb")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_xdp_goes_on_without_an_agent_and_down_takes_it_off(lan: Lan, vms: Vms, end: str) -> None:
    a, b, _ = vms
    program = program_at(lan, "ta")
    if end == "stop":
        lan.agent.cli("stop")
    else:
        lan.agent.kill()
    assert program_at(lan, "ta") == program
    assert_connected(a, b)
    lan.agent.up()
    assert program_at(lan, "ta") not in (None, program)
    assert_connected(a, b)
    lan.agent.cli("down")
    assert program_at(lan, "ta") is None


def test_a_vm_that_ends_and_comes_back_is_sent_to_by_xdp_again(lan: Lan, vms: Vms) -> None:
    a, b, _ = vms
    b.unplug()
    wait_until(lambda: lan.state("tb") == "pending", what="tb is pending")
    b.plug()
    wait_until(lambda: lan.state("tb") == "up", what="tb is up")
    wait_until(lambda: hook(lan, "tb") == ("xdp+tc", ""), what="tb has XDP")
    assert_connected(a, b)


def test_an_uplink_on_a_veth_has_tc_whatever_was_asked_for(lan: Lan, world: World) -> None:
    lan.agent.cli("uplink", "add", "up0", "--hook", "xdp")
    world.fabric(lan.switch, "up0")
    wait_until(lambda: lan.client.get("v1", "uplinks")[0]["state"] == "up", what="up0 is attached")
    [uplink] = lan.client.get("v1", "uplinks")
    assert (uplink["hook"], uplink["hook_why"]) == ("tc", "a device of kind veth: tc is the faster hook there")

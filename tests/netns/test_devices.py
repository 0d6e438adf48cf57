"""Devices that come, go and change: a port waits for its device, takes it at once, and lets go of it without fuss.

   a              b
┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │        VMs start (plug) and end (unplug) as they like
└──┬───┘       └──┬───┘
┌──┴──────────────┴───┐
│  vN / tN       vN   │        switch: one for all tests of this file
└─────────────────────┘
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest

from support.hearing import frame, ports_of, who_hears
from support.lan import Lan, assert_apart, assert_connected, running_lan
from vxagent.lab.frames import BROADCAST
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

ATTACH_WITHIN_S = 5.0  # 0.1 on a machine that has nothing else to do; without the event it would be a minute
CYCLES = 10
LINES_A_CYCLE = 3  # of log
MANY = 40
OTHERS = 300  # twice as many devices, since veths come in pairs

KINDS = pytest.mark.parametrize("kind", ["veth", "tap"])


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


def vm_on(lan: Lan, kind: str, segment: str | None) -> VethVm | TapVm:
    return lan.veth(lan.unique("v"), segment) if kind == "veth" else lan.tap(lan.unique("t"), segment)


def wait_for_state(lan: Lan, port: str, state: str, *, within: float = 5.0) -> None:
    wait_until(lambda: lan.state(port) == state, within=within, what=f"port {port} is {state}")


def log_lines(lan: Lan) -> list[str]:
    return (lan.agent.run_dir / "agent.log").read_text().splitlines()


# --- devices that come and go ---------------------------------------------------------------------


@KINDS
def test_a_pending_port_takes_its_device_when_it_appears(
    lan: Lan, blue: str, kind: str, record_property: Callable[[str, object], None]
) -> None:
    vm = vm_on(lan, kind, None)
    vm.unplug()
    said = lan.agent.cli("port", "attach", vm.port, "--segment", blue).stdout
    assert said == f"port {vm.port} attached; device {vm.port} is not there\n"
    assert lan.state(vm.port) == "pending"
    vm.plug()
    begun = time.monotonic()
    wait_for_state(lan, vm.port, "up", within=ATTACH_WITHIN_S)
    took = time.monotonic() - begun
    record_property("attached_after_ms", round(1000 * took))
    sys.stdout.write(f"{kind}: attached {1000 * took:.0f} ms after its device was there\n")
    assert_connected(vm, lan.veth(lan.unique("v"), blue))


def test_many_devices_that_appear_at_once_are_all_taken(lan: Lan, blue: str) -> None:
    far = lan.world.namespace("many")
    names = [lan.unique("m") for _ in range(MANY)]
    for name in names:
        lan.attach(name, blue)
    lan.switch.ip_batch(f"link add {name} type veth peer name {name} netns {far.name}" for name in names)
    wait_until(lambda: {lan.state(name) for name in names} == {"up"}, within=10, what="all are attached")
    lan.switch.ip_batch(f"link delete {name}" for name in names)
    wait_until(lambda: {lan.state(name) for name in names} == {"pending"}, what="all are pending again")


def test_a_pending_port_does_not_wait_behind_devices_of_others(lan: Lan, blue: str) -> None:
    vm = lan.veth(lan.unique("v"), None)
    vm.unplug()
    lan.attach(vm.port, blue)
    others = [lan.unique("o") for _ in range(OTHERS)]
    lan.switch.ip_batch(f"link add {name} type veth peer name {name}p" for name in others)
    vm.plug()
    wait_for_state(lan, vm.port, "up", within=ATTACH_WITHIN_S)


@KINDS
def test_a_device_that_comes_and_goes_makes_no_error_loop(lan: Lan, blue: str, kind: str) -> None:
    vm, peer = vm_on(lan, kind, blue), lan.veth(lan.unique("v"), blue)
    indices = set()
    before = len(log_lines(lan))
    for _ in range(CYCLES):
        indices.add(lan.device(vm.port)["ifindex"])
        vm.unplug()
        wait_for_state(lan, vm.port, "pending")
        vm.plug()
        wait_for_state(lan, vm.port, "up")
    assert len(indices) == CYCLES
    assert_connected(vm, peer)
    said = log_lines(lan)[before:]
    assert len(said) <= LINES_A_CYCLE * CYCLES, said
    assert not [line for line in said if "Traceback" in line or "ERROR" in line]


def test_a_port_keeps_its_locks_and_entries_when_its_device_comes_back(lan: Lan, blue: str) -> None:
    vm = lan.veth(lan.unique("v"), None)
    lan.attach(vm.port, blue, mac=[vm.mac], isolated=True)
    isolated, peer = lan.veth(lan.unique("v"), blue, isolated=True), lan.veth(lan.unique("v"), blue)
    lan.agent.cli("fdb", "add", static := "02:00:00:00:88:01", "--segment", blue, "--port", vm.port)
    vm.unplug()
    wait_for_state(lan, vm.port, "pending")
    vm.plug()
    wait_for_state(lan, vm.port, "up")
    assert who_hears(lan, vm, frame(BROADCAST, "02:00:00:00:88:02"), isolated, peer) == []
    assert who_hears(lan, vm, frame(BROADCAST, vm.mac), isolated, peer) == ports_of(peer)
    assert who_hears(lan, peer, frame(static, peer.mac), isolated, vm) == ports_of(vm)


def test_a_renamed_device_leaves_its_port_and_comes_back_by_its_name(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    assert_connected(a, b)
    lan.switch.ip("link", "set", a.port, "name", other := lan.unique("r"))
    wait_for_state(lan, a.port, "pending")
    assert "UP" not in lan.device(other)["flags"]
    assert_apart(a, b)
    lan.switch.ip("link", "set", other, "name", a.port, "up")
    wait_for_state(lan, a.port, "up")
    a.namespace.wait_running(NIC)
    assert_connected(a, b)


def test_a_device_gets_the_name_of_a_pending_port(lan: Lan, blue: str) -> None:
    a, b = lan.veth(lan.unique("v"), None), lan.veth(lan.unique("v"), blue)
    lan.attach(wanted := lan.unique("w"), blue)
    lan.switch.ip("link", "set", a.port, "down")
    lan.switch.ip("link", "set", a.port, "name", wanted)
    a.port = wanted
    wait_for_state(lan, wanted, "up")
    a.namespace.wait_running(NIC)
    assert_connected(a, b)


def test_a_device_that_moves_to_another_namespace_is_let_go(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    assert_connected(a, b)
    elsewhere = lan.world.namespace("elsewhere")
    lan.switch.ip("link", "set", a.port, "netns", elsewhere.name)
    wait_for_state(lan, a.port, "pending")
    elsewhere.ip("link", "set", a.port, "up")
    with Sniffer(b.namespace, NIC) as at_b, Sniffer(elsewhere, a.port, ethertype=0x88B5) as stack:
        elsewhere.wait_running(a.port)
        a.namespace.wait_running(NIC)
        sent = frame(BROADCAST, a.mac)
        send_frames(a.namespace, NIC, sent)
        stack.wait_for(lambda arrived: arrived.data == sent)
        assert at_b.frames() == []


def test_a_device_that_is_set_down_shows_and_comes_up_again(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    lan.switch.ip("link", "set", a.port, "down")
    wait_for_state(lan, a.port, "down")
    assert "ip link set dev" in lan.show(a.port)["why"]
    lan.switch.ip("link", "set", a.port, "up")
    wait_for_state(lan, a.port, "up")
    a.namespace.wait_running(NIC)
    assert_connected(a, b)


# --- devices that cannot be taken -----------------------------------------------------------------


def test_an_enslaved_device_is_refused_with_the_command_that_frees_it(lan: Lan, blue: str) -> None:
    vm = lan.veth(lan.unique("v"), None)
    bridge = lan.unique("br")
    lan.switch.ip("link", "add", bridge, "type", "bridge")
    lan.switch.ip("link", "set", vm.port, "master", bridge)
    with pytest.raises(CommandFailed) as refused:
        lan.agent.cli("port", "attach", vm.port, "--segment", blue)
    frees = f"ip link set dev {vm.port} nomaster"
    assert refused.value.code == 1
    assert refused.value.output == f"vxagent: device {vm.port} is enslaved to {bridge}; free it with `{frees}`\n"
    lan.switch.run(*frees.split())
    lan.agent.cli("port", "attach", vm.port, "--segment", blue)
    assert_connected(vm, lan.veth(lan.unique("v"), blue))


def test_a_device_with_an_address_of_the_host_is_refused(lan: Lan, blue: str) -> None:
    vm = lan.veth(lan.unique("v"), None)
    lan.switch.ip("address", "add", "10.7.7.7/24", "dev", vm.port)
    with pytest.raises(
        CommandFailed, match=rf"device {vm.port} has the host's address 10\.7\.7\.7.*ip address flush dev"
    ):
        lan.agent.cli("port", "attach", vm.port, "--segment", blue)
    lan.switch.ip("address", "flush", "dev", vm.port)
    lan.agent.cli("port", "attach", vm.port, "--segment", blue)
    assert_connected(vm, lan.veth(lan.unique("v"), blue))


def test_the_loopback_device_is_refused(lan: Lan, blue: str) -> None:
    with pytest.raises(CommandFailed, match="lo is the host's own"):
        lan.agent.cli("port", "attach", "lo", "--segment", blue)


def test_a_device_that_comes_enslaved_waits_until_it_is_freed(lan: Lan, blue: str) -> None:
    vm, peer = lan.veth(lan.unique("v"), None), lan.veth(lan.unique("v"), blue)
    vm.unplug()
    lan.attach(vm.port, blue)
    bridge = lan.unique("br")
    lan.switch.ip("link", "add", bridge, "type", "bridge")
    lan.switch.ip(*f"link add {vm.port} master {bridge} type veth peer name {NIC} netns {vm.namespace.name}".split())
    wait_until(lambda: "nomaster" in lan.show(vm.port)["why"], what="the port says why it waits")
    assert lan.state(vm.port) == "pending"
    lan.switch.ip("link", "set", "dev", vm.port, "nomaster")
    wait_for_state(lan, vm.port, "up")
    vm.configure(mtu=1500)
    vm.namespace.wait_running(NIC)
    assert_connected(vm, peer)


def test_a_port_stays_a_port_when_somebody_enslaves_its_device_or_gives_it_an_address(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    bridge = lan.unique("br")
    lan.switch.ip("link", "add", bridge, "type", "bridge")
    lan.switch.ip("link", "set", a.port, "master", bridge)
    lan.switch.ip("address", "add", "10.0.0.253/24", "dev", a.port)
    wait_until(lambda: lan.device(a.port).get("master") == bridge)
    assert_connected(a, b)
    assert ping(a.namespace, "10.0.0.253", count=2, patience=0.2).received == 0
    lan.switch.ip("link", "delete", bridge)

"""What holds whatever else happens: the host's stack and a VM never meet, no agent loses a frame, counters add up.

   a              b              c                 host in VLAN 10
┌──────┐       ┌──────┐       ┌──────┐            ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │            │ eth0 │
└──┬───┘       └──┬───┘       └──┬───┘            └──┬───┘
┌──┴──────────────┴──────────────┴───┐            fabric
│  va (veth)      tb (tap)       vc  ├── up0 ────────┘
└────────────────────────────────────┘   the host has 10.0.0.254, and IPv6, and would answer on any device
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from support.hearing import Party, frame, hear, overhear, ports_of, who_hears
from support.lan import AMOUNT, Lan, assert_connected, running_lan
from vxagent.errors import NoAgent
from vxagent.lab.frames import ARP, BROADCAST, EXPERIMENTAL, IPV4, IPV6, Frame, ethernet
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, Endpoint, TapVm, VethVm
from vxagent.lab.waiting import wait_until

HOST_ADDRESS = "10.0.0.254"
NOBODY = "02:00:00:00:99:99"
SOME = 20  # answers to wait for between two events

KINDS = pytest.mark.parametrize("kind", ["veth", "tap"])


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file, on a host with an address for which it answers on every device."""
    with running_lan() as lan:
        lan.switch.ip("address", "add", f"{HOST_ADDRESS}/32", "dev", "lo")
        yield lan


@pytest.fixture
def red(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


def unplugged(lan: Lan, kind: str) -> VethVm | TapVm:
    """A VM whose device is there but not attached."""
    return lan.veth(lan.unique("v"), None) if kind == "veth" else lan.tap(lan.unique("t"), None)


def who_has(vm: Endpoint, address: str = HOST_ADDRESS) -> bytes:
    """An ARP request (RFC 826)."""
    mac = bytes.fromhex(vm.mac.replace(":", ""))
    ask = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + mac + socket.inet_aton(vm.address) + bytes(6)
    return ethernet(BROADCAST, vm.mac, ARP, ask + socket.inet_aton(address))


def is_answer(arrived: Frame) -> bool:
    return arrived.ethertype == ARP and arrived.payload[7] == 2


def host_answers(vm: VethVm | TapVm) -> bool:
    """The host's stack answers on a device that is no port."""
    if isinstance(vm, VethVm):
        vm.namespace.wait_running(NIC)  # what was set up a moment ago loses frames until the kernel has noticed
        vm.switch.wait_running(vm.port)
    with Sniffer(vm.namespace, NIC) as at_vm:
        send_frames(vm.namespace, NIC, who_has(vm))
        at_vm.wait_for(is_answer)
    return True


# --- 2: the host's stack and a VM -----------------------------------------------------------------


@KINDS
def test_the_host_answers_a_vm_until_it_is_attached(lan: Lan, red: str, kind: str) -> None:
    vm = unplugged(lan, kind)
    assert host_answers(vm)
    lan.attach(vm.port, red)
    [heard] = overhear(lan, vm, who_has(vm), vm)
    assert heard == []


@KINDS
@pytest.mark.parametrize("ethertype", [ARP, IPV4, IPV6, EXPERIMENTAL])
@pytest.mark.parametrize("to", ["the port's device", "everybody"])
def test_nothing_that_a_vm_sends_reaches_the_hosts_stack(
    lan: Lan, red: str, kind: str, ethertype: int, to: str
) -> None:
    vm = unplugged(lan, kind)
    destination = lan.device(vm.port)["address"] if to == "the port's device" else BROADCAST
    with Sniffer(lan.switch, vm.port, ethertype=ethertype) as stack:
        send_frames(vm.namespace, NIC, control := frame(destination, vm.mac, ethertype=ethertype))
        stack.wait_for(lambda arrived: arrived.data == control)
        lan.attach(vm.port, red)
        stack.forget()
        hear(lan, vm, frame(destination, vm.mac, ethertype=ethertype))
        assert stack.frames() == []


@KINDS
def test_nothing_that_the_host_says_reaches_a_vm_from_attach_to_detach(lan: Lan, red: str, kind: str) -> None:
    vm, peer = unplugged(lan, kind), lan.veth(lan.unique("v"), red)
    with Sniffer(vm.namespace, NIC) as at_vm:
        at_vm.wait_for(lambda arrived: arrived.ethertype == IPV6)  # the host looks for routers and neighbours
        lan.attach(vm.port, red)
        at_vm.forget()
        for state in ("down", "up", "down", "up"):  # at which a device of the host begins anew
            lan.switch.ip("link", "set", vm.port, state)
        wait_until(lambda: lan.state(vm.port) == "up")
        ping(lan.switch, vm.address, count=2, patience=0.1)
        lan.switch.run("ping", "-6", "-c", "1", "-W", "0.1", f"ff02::1%{vm.port}", check=False)
        assert who_hears(lan, peer, frame(BROADCAST, peer.mac), vm) == ports_of(vm)
        lan.agent.cli("port", "detach", vm.port)
        strangers = [arrived for arrived in at_vm.frames() if arrived.source not in (peer.mac, "02:ff:ff:ff:ff:ff")]
        assert strangers == []


@KINDS
def test_a_detached_device_is_down_and_otherwise_the_hosts_again(lan: Lan, red: str, kind: str) -> None:
    vm = unplugged(lan, kind)
    before = lan.device(vm.port)
    lan.attach(vm.port, red)
    assert "NOARP" in lan.device(vm.port)["flags"]
    lan.agent.cli("port", "detach", vm.port)
    assert "UP" not in lan.device(vm.port)["flags"]
    lan.switch.ip("link", "set", vm.port, "up")
    assert host_answers(vm)
    assert set(lan.device(vm.port)["flags"]) == set(before["flags"])


# --- 3: fail static -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def agent_afterwards(lan: Lan) -> Iterator[None]:
    """Whatever a test does to the agent, the next one finds one."""
    yield
    try:
        lan.client.get("v1", "status")
    except NoAgent:
        lan.agent.up()


@pytest.fixture(scope="module")
def parties(lan: Lan) -> tuple[VethVm, TapVm, Endpoint]:
    """A VM on a veth, one on a tap, and a host in the same VLAN."""
    lan.segment("blue", vlan=10)
    return lan.veth("va", "blue"), lan.tap("tb", "blue"), lan.host(lan.uplink(), 10)


@pytest.fixture
def pingers(parties: tuple[VethVm, TapVm, Endpoint]) -> Iterator[list[Pinger]]:
    """Pings from veth to tap, from tap to the physical network, and from there to the veth."""
    a, b, c = parties
    pairs = ((a, b), (b, c), (c, a))
    for one, other in pairs:
        assert ping(one.namespace, other.address).lost == []
    pingers = [Pinger(one.namespace, other.address, interval=0.003).start() for one, other in pairs]
    yield pingers
    for pinger in pingers:
        assert pinger.stop().lost == []


def go_on(pingers: list[Pinger]) -> None:
    """Wait until some more requests are answered."""
    enough = [pinger.pings.received + SOME for pinger in pingers]
    wait_until(
        lambda: all(pinger.pings.received >= some for pinger, some in zip(pingers, enough, strict=True)),
        what="pings go on",
    )


def test_an_agent_that_is_killed_loses_no_frame_nor_does_the_next_one(lan: Lan, pingers: list[Pinger]) -> None:
    go_on(pingers)
    lan.agent.kill()
    go_on(pingers)
    lan.agent.up()
    go_on(pingers)


def test_an_agent_that_stops_loses_no_frame_nor_does_the_next_one(lan: Lan, pingers: list[Pinger]) -> None:
    lan.agent.cli("stop")
    go_on(pingers)
    lan.agent.up()
    go_on(pingers)


def test_an_agent_that_hangs_loses_no_frame(lan: Lan, pingers: list[Pinger]) -> None:
    pid = lan.agent.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        go_on(pingers)
    finally:
        os.kill(pid, signal.SIGCONT)
    go_on(pingers)


def test_reload_loses_no_frame(lan: Lan, pingers: list[Pinger]) -> None:
    for _ in range(5):
        lan.agent.cli("reload")
        go_on(pingers)


def test_changes_next_to_it_lose_no_frame_of_a_port(lan: Lan, pingers: list[Pinger]) -> None:
    lan.veth("vx", "blue")
    lan.agent.cli("port", "set", "vx", "--isolated")
    lan.agent.cli("segment", "add", "new", "--tenant", "evil", "--vlan", "20")
    lan.agent.cli("port", "set", "va", "--max-macs", "10")
    lan.agent.cli("port", "detach", "vx")
    lan.agent.cli("segment", "del", "new")
    go_on(pingers)


def test_without_an_agent_vms_that_never_spoke_find_each_other(lan: Lan, red: str) -> None:
    vms = lan.veth(lan.unique("v"), red), lan.tap(lan.unique("t"), red)
    lan.agent.kill()
    assert_connected(*vms)
    lan.agent.up()
    assert all(lan.entry(red, vm.mac) for vm in vms)  # learned without it, kept by it


def test_without_an_agent_entries_age(lan: Lan, red: str) -> None:
    a, b, c = lan.veths(red, 3)
    lan.agent.config_file.write_text("ageing_s = 1\n")
    lan.agent.cli("reload")
    lan.agent.config_file.write_text("")  # for the next agent
    assert ping(a.namespace, b.address).lost == []
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b)
    lan.agent.kill()
    with Sniffer(c.namespace, NIC) as at_c:

        def floods() -> bool:
            send_frames(a.namespace, NIC, frame(b.mac, a.mac))
            return any(arrived.destination == b.mac for arrived in at_c.frames())

        wait_until(floods, what="b is forgotten")


# --- 5: counters add up ---------------------------------------------------------------------------


def test_counters_add_up_once_traffic_rests(lan: Lan, parties: tuple[VethVm, TapVm, Endpoint]) -> None:
    a, b, c = parties
    d = lan.veth("vd", "blue", max_macs=0)  # never learned: what is sent to it floods
    vms: tuple[VethVm | TapVm, ...] = (a, b, d)
    ports = [vm.port for vm in vms]
    heard_before = {vm.port: lan.statistics(NIC, vm.namespace)["rx"] for vm in vms}
    given_before = {name: lan.show(name)["tx_packets"] for name in ports}
    uncounted = {name: lan.statistics(name)["rx"] - lan.received(name) for name in (*ports, "up0")}

    for one, other in ((a, b), (b, c), (c, a), (a, d), (d, c)):
        assert bulk_tcp(one.namespace, other.namespace, other.address, amount=AMOUNT).received == AMOUNT
    send_frames(a.namespace, NIC, *(frame(BROADCAST, a.mac) for _ in range(100)))
    send_frames(a.namespace, NIC, *(frame(b.mac, "03:00:00:00:00:01") for _ in range(50)))
    send_frames(b.namespace, NIC, *(frame("01:80:c2:00:00:00", b.mac) for _ in range(30)))

    def in_as_devices_say() -> bool:
        return all(lan.statistics(name)["rx"] - lan.received(name) == before for name, before in uncounted.items())

    wait_until(in_as_devices_say, what="frames in are those that the devices brought")
    shown = {name: lan.show(name) for name in ports}
    for port in shown.values():
        assert port["rx_packets"] == sum(port["verdicts"].values()) + sum(port["drops_by_reason"].values())
        assert port["egress_failed"] == 0
    assert shown[a.port]["drops_by_reason"]["src_invalid"] == 50
    assert shown[b.port]["drops_by_reason"]["link_local"] == 30
    for vm in vms:
        given = shown[vm.port]["tx_packets"] - given_before[vm.port]
        assert given == lan.statistics(NIC, vm.namespace)["rx"] - heard_before[vm.port]


def test_copies_made_are_copies_owed(lan: Lan, red: str) -> None:
    vms: list[Party] = [*lan.veths(red, 3), *lan.taps(red, 2)]
    names = ports_of(*vms)
    sender = vms[0]
    for n in range(20):
        who_hears(lan, sender, frame(BROADCAST if n % 2 else NOBODY, "02:00:00:00:00:01"))
    shown = {name: lan.show(name) for name in names}
    assert shown[names[0]]["verdicts"]["flooded"] == 20
    assert [port["copies"] for port in shown.values()] == [80, 0, 0, 0, 0]
    assert [port["tx_packets"] for port in shown.values()] == [0, 20, 20, 20, 20]

"""The switch answers ARP and ND for VMs whose addresses it knows, and nobody else is asked.

   a              b              c
┌──────┐       ┌──────┐       ┌──────┐    VMs on veths and taps; each test has a segment of its own.
│ eth0 │       │ eth0 │       │ eth0 │    VM n: 02:00:00:00:00:NN, 10.0.0.NN, 2001:db8::NN
└──┬───┘       └──┬───┘       └──┬───┘
┌──┴──────────────┴──────────────┴───┐
│  vN             vN             vN  │    b lists its MAC and its addresses
└────────────────────────────────────┘
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

import pytest

from support import frames
from support.asking import advertisement, group_of, mac_of, solicitation
from support.frames import BROADCAST, L3, arp, ethernet, vlan
from support.hearing import overhear, ports_of, who_hears
from support.ipv6 import PATIENT_MS, address_6, echoes, speak_ipv6
from support.lan import AMOUNT, Lan, assert_connected, running_lan
from support.offload import send_offloaded
from vxagent.lab.frames import Frame
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

Vm: TypeAlias = VethVm | TapVm

UNKNOWN, UNKNOWN_6 = "10.0.0.254", "2001:db8::254"
ARP_REQUEST = b"\0\1"
GROUP = b"\x33\x33"  # RFC 2464, section 7
MANY = 2000

_numbers = itertools.count(1)
_vids = itertools.count(70)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


def plug(lan: Lan, segment: str, kind: str = "veth") -> Vm:
    """A VM whose port lists nothing."""
    return lan.veths(segment, 1)[0] if kind == "veth" else lan.taps(segment, 1)[0]


def listed(lan: Lan, segment: str, kind: str = "veth") -> Vm:
    """A VM whose port lists its MAC and its addresses."""
    vm = plug(lan, segment, kind)
    lan.client.change("PATCH", "v1", "ports", vm.port, body={"mac": [vm.mac], "ip": [vm.address, address_6(vm)]})
    return vm


def octets(vm: Vm) -> bytes:
    return bytes.fromhex(vm.mac.replace(":", ""))


def replied(lan: Lan, vm: Vm) -> int:
    """Questions of a VM that were answered."""
    return int(lan.show(vm.port)["verdicts"]["replied"])


def is_question(frame: Frame, vm: Vm) -> bool:
    """Whether somebody asks everybody for the MAC of a VM."""
    data = frame.data
    if frame.ethertype == frames.ARP:
        return data[20:22] == ARP_REQUEST and data[38:42] == ip_address(vm.address).packed
    if frame.ethertype == frames.IPV6:
        return data[:2] == GROUP and data[54] == frames.NS and data[62:78] == ip_address(address_6(vm)).packed
    return False


def marked(inside: L3) -> L3:
    """Padded with what tells it from all others."""
    return L3(inside.ethertype, inside.data + f"frame {next(_numbers)} ".encode().ljust(46, b"."))


# --- real hosts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("veth", "veth"), ("tap", "tap"), ("tap", "veth"), ("veth", "tap")], ids="-".join)
def test_vms_find_each_other_and_nobody_is_asked(lan: Lan, blue: str, kinds: tuple[str, str]) -> None:
    a, b = plug(lan, blue, kinds[0]), listed(lan, blue, kinds[1])
    with Sniffer(b.namespace, NIC) as at_b:
        assert ping(a.namespace, b.address).lost == []
        assert not at_b.frames(lambda frame: is_question(frame, b))
    assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT).received == AMOUNT
    assert_connected(a, b)
    assert replied(lan, a) >= 1


@pytest.mark.parametrize("kinds", [("veth", "veth"), ("tap", "tap"), ("tap", "veth"), ("veth", "tap")], ids="-".join)
def test_so_they_do_by_ipv6(lan: Lan, blue: str, kinds: tuple[str, str]) -> None:
    a, b = plug(lan, blue, kinds[0]), listed(lan, blue, kinds[1])
    for vm in (a, b):
        speak_ipv6(vm)
    before = replied(lan, a)
    with Sniffer(b.namespace, NIC) as at_b:
        assert echoes(a, address_6(b))
        assert not at_b.frames(lambda frame: is_question(frame, b))
    assert replied(lan, a) > before
    for one, other in ((a, b), (b, a)):
        transfer = bulk_tcp(one.namespace, other.namespace, address_6(other), amount=AMOUNT)
        assert transfer.received == AMOUNT


def test_ports_that_list_each_ask_nobody(lan: Lan, blue: str) -> None:
    a, b = (listed(lan, blue) for _ in range(2))
    for vm in (a, b):
        speak_ipv6(vm)
    with Sniffer(a.namespace, NIC) as at_a, Sniffer(b.namespace, NIC) as at_b:
        assert_connected(a, b)
        assert echoes(a, address_6(b))
        assert echoes(b, address_6(a))
        assert not at_a.frames(lambda frame: is_question(frame, a))
        assert not at_b.frames(lambda frame: is_question(frame, b))
    assert (lan.drops(a.port), lan.drops(b.port)) == ({}, {})


# --- one question at a time -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a VM asks, and what it has to be told."""

    sent: bytes
    answer: bytes


def by_arp(asker: Vm, owner: Vm, *tags: bytes, target: str = "") -> Question:
    target = target or owner.address
    asked = marked(arp(asker.address, target, sender_mac=octets(asker)))
    reply = arp(target, asker.address, operation=2, sender_mac=octets(owner), target_mac=octets(asker))
    return Question(
        sent=ethernet(BROADCAST, octets(asker), asked, *tags),
        answer=ethernet(octets(asker), octets(owner), L3(reply.ethertype, reply.data + asked.data[28:]), *tags),
    )


def by_nd(asker: Vm, owner: Vm, *tags: bytes, target: str = "") -> Question:
    """Of one that does not say its MAC: the answer is longer than the question. Behind it is what marks it."""
    target = target or address_6(owner)
    asked = marked(solicitation(target, source=address_6(asker)))
    told = advertisement(target, address_6(asker), octets(owner))
    return Question(
        sent=ethernet(mac_of(group_of(target)), octets(asker), asked, *tags),
        answer=ethernet(octets(asker), octets(owner), told, *tags),
    )


Ask: TypeAlias = Callable[..., Question]
both = pytest.mark.parametrize("ask", [by_arp, by_nd])


@both
@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_the_answer_comes_back_and_goes_nowhere_else(lan: Lan, blue: str, ask: Ask, kind: str) -> None:
    a, b, c = plug(lan, blue, kind), listed(lan, blue), plug(lan, blue)
    question = ask(a, b)
    assert who_hears(lan, a, question.sent, b, c) == []
    [at_a] = overhear(lan, a, question.sent, a)
    assert [frame.data for frame in at_a if frame.source == b.mac] == [question.answer]
    shown = lan.show(a.port)
    assert (shown["verdicts"]["replied"], shown["drops"]) == (2, 0)


@both
def test_an_unknown_address_is_asked_for_everywhere(lan: Lan, blue: str, ask: Ask) -> None:
    a, b, c = plug(lan, blue), listed(lan, blue), plug(lan, blue)
    question = ask(a, b, target=UNKNOWN if ask is by_arp else UNKNOWN_6)
    assert who_hears(lan, a, question.sent, b, c) == ports_of(b, c)
    assert replied(lan, a) == 0


@both
@pytest.mark.parametrize("tag", ["in the bytes", "beside the frame"])
def test_a_trunk_is_answered_in_its_vlan(lan: Lan, blue: str, ask: Ask, tag: str) -> None:
    red = lan.new_segment()
    a = lan.veth(lan.unique("v"), None)
    lan.attach(a.port, trunk=[f"{blue}:110", f"{red}:120"])
    b = listed(lan, blue)
    question = ask(a, b, vlan(110, pcp=5))
    by = send_frames if tag == "in the bytes" else send_offloaded
    [at_a] = overhear(lan, a, question.sent, a, by=by)
    assert [frame.data for frame in at_a if frame.source == b.mac] == [question.answer]
    assert who_hears(lan, a, ask(a, b, vlan(120)).sent, a, b, by=by) == []
    assert replied(lan, a) == 1


@both
def test_the_physical_network_is_not_answered_and_not_asked(lan: Lan, ask: Ask) -> None:
    """Those who ask from there are answered by the VM itself."""
    vid = next(_vids)
    fabric = lan.uplink(lan.unique("up"))
    segment = lan.new_segment(vlan=vid)
    a, b = plug(lan, segment), listed(lan, segment)
    assert who_hears(lan, a, ask(a, b).sent, fabric, b) == []
    assert who_hears(lan, fabric, ask(a, b, vlan(vid)).sent, b) == ports_of(b)
    lan.agent.cli("uplink", "del", fabric.uplink)


def announcements(a: Vm, b: Vm) -> dict[str, bytes]:
    """Name → what everybody has to hear, though it asks for the address of b."""
    all_nodes = mac_of(group_of(address_6(b)))
    said: dict[str, tuple[bytes, L3]] = {
        "gratuitous ARP": (BROADCAST, arp(b.address, b.address, sender_mac=octets(a))),
        "gratuitous reply": (BROADCAST, arp(b.address, b.address, operation=2, sender_mac=octets(a))),
        "ARP probe": (BROADCAST, arp("0.0.0.0", b.address, sender_mac=octets(a))),
        "DAD": (all_nodes, solicitation(address_6(b), source="::")),
        "DAD with a nonce": (all_nodes, solicitation(address_6(b), bytes([14, 1]).ljust(8, b"n"), source="::")),
    }
    return {name: ethernet(to, octets(a), marked(inside)) for name, (to, inside) in said.items()}


def test_announcements_reach_everybody(lan: Lan, blue: str) -> None:
    a, b, c = plug(lan, blue), listed(lan, blue), plug(lan, blue)
    for name, sent in announcements(a, b).items():
        assert who_hears(lan, a, sent, b, c) == ports_of(b, c), name
    assert replied(lan, a) == 0


def test_dad_finds_the_address_of_a_vm_that_is_answered_for(lan: Lan, blue: str) -> None:
    a, b = plug(lan, blue), listed(lan, blue)
    speak_ipv6(b)
    speak_ipv6(a, address_6(b), probe_ms=PATIENT_MS)
    assert "dadfailed" in a.namespace.ip("-6", "address", "show", "dev", NIC)


# --- live -----------------------------------------------------------------------------------------


def test_what_is_set_changes_the_answer_at_once(lan: Lan, blue: str) -> None:
    a, b, c = plug(lan, blue), listed(lan, blue), plug(lan, blue)

    def heard(target: str) -> list[str]:
        return who_hears(lan, a, by_arp(a, b, target=target).sent, b, c)

    assert (heard(b.address), heard(UNKNOWN)) == ([], ports_of(b, c))
    lan.agent.cli("port", "set", b.port, "--ip", UNKNOWN)
    assert (heard(b.address), heard(UNKNOWN)) == (ports_of(b, c), [])
    lan.agent.cli("port", "set", b.port, "--ip", "10.0.0.0/24")
    assert (heard(b.address), heard(UNKNOWN)) == (ports_of(b, c), ports_of(b, c))
    lan.agent.cli("port", "set", b.port, "--ip", b.address)
    assert heard(b.address) == []
    lan.agent.cli("port", "set", b.port, "--no-mac")
    assert heard(b.address) == ports_of(b, c)


def test_of_an_address_that_two_ports_list_they_are_asked(lan: Lan, blue: str) -> None:
    a, b, c = plug(lan, blue), listed(lan, blue), listed(lan, blue)
    question = by_arp(a, b)
    lan.agent.cli("port", "set", c.port, "--ip", c.address, "--ip", b.address)
    assert who_hears(lan, a, question.sent, b, c) == ports_of(b, c)
    lan.agent.cli("port", "set", c.port, "--ip", c.address)
    assert who_hears(lan, a, question.sent, b, c) == []


def test_an_owner_whose_device_goes_is_asked_for_again(lan: Lan, blue: str) -> None:
    a, b, c = plug(lan, blue), listed(lan, blue), plug(lan, blue)
    assert who_hears(lan, a, by_arp(a, b).sent, c) == []
    b.unplug()
    wait_until(lambda: lan.state(b.port) == "pending", what="the port has lost its device")
    assert who_hears(lan, a, by_arp(a, b).sent, c) == ports_of(c)


def test_answers_outlive_the_agent(lan: Lan, blue: str) -> None:
    a, b = plug(lan, blue), listed(lan, blue)
    lan.agent.kill()
    with Sniffer(b.namespace, NIC) as at_b:
        assert ping(a.namespace, b.address).lost == []
        assert not at_b.frames(lambda frame: is_question(frame, b))
    lan.agent.up()
    assert replied(lan, a) >= 1
    assert who_hears(lan, a, by_arp(a, b).sent, b) == []


def test_metrics_and_port_show_tell_of_answers(lan: Lan, blue: str) -> None:
    a, b = plug(lan, blue), listed(lan, blue)
    before = lan.show(a.port)
    assert who_hears(lan, a, by_arp(a, b).sent, b) == []
    after = lan.show(a.port)
    assert after["verdicts"]["replied"] - before["verdicts"]["replied"] == 1
    assert after["copies"] - before["copies"] >= 1
    assert after["tx_packets"] - before["tx_packets"] >= 1
    assert "verdicts replied" in lan.agent.cli("port", "show", a.port).stdout


# --- attacks --------------------------------------------------------------------------------------


@both
def test_a_vm_that_asks_for_itself_is_not_answered(lan: Lan, blue: str, ask: Ask) -> None:
    a, b = listed(lan, blue), plug(lan, blue)
    question = ask(a, a, target=a.address if ask is by_arp else address_6(a))
    assert who_hears(lan, a, question.sent, a, b) in ([], ports_of(b))  # by ARP it is gratuitous, and its own to send
    assert replied(lan, a) == 0


def test_a_flood_of_questions_changes_nothing_for_the_neighbours(lan: Lan, blue: str) -> None:
    """Whether for unknown addresses or for one that is known: nobody hears of the latter."""
    a, b, c = plug(lan, blue), listed(lan, blue), plug(lan, blue)
    unknown = [by_arp(a, b, target=f"10.0.{1 + n // 250}.{1 + n % 250}").sent for n in range(MANY)]
    send_frames(a.namespace, NIC, *unknown, *(by_arp(a, b).sent for _ in range(MANY)))
    wait_until(lambda: lan.received(a.port) >= 2 * MANY, what="the switch has taken all")
    assert replied(lan, a) == MANY
    assert lan.show(a.port)["verdicts"]["flooded"] >= MANY
    assert ping(c.namespace, b.address).lost == []
    assert who_hears(lan, c, by_arp(c, b).sent, a, b) == []

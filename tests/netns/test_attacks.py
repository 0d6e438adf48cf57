"""What a VM may try to reach another tenant, its neighbours' traffic, or the host; one test each.

   victim        mallory        friend             VLAN 10 and 20
┌──────┐       ┌──────┐       ┌──────┐            ┌────────┐
│ eth0 │       │ eth0 │       │ eth0 │            │ fabric │    mallory has raw sockets, and means harm
└──┬───┘       └──┬───┘       └──┬───┘            └───┬────┘
┌──┴──────────────┴──────────────┴───┐                │
│  vN             vN             vN  ├─ up0 ──────────┘    each test has a segment of its own, and one of another tenant
└────────────────────────────────────┘

Elsewhere: tags on access and trunk ports in test_trunk.py, spoofed IP, ARP, ND and RA in test_addresses.py, frames to
the host's own MACs in test_promises.py and test_uplink.py, a neighbour's MAC that is moved in test_learning.py.
"""

from __future__ import annotations

import itertools
import os
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from support.frames import BROADCAST, FRAGMENT, L3, NA, RA, ethernet, ipv4, ipv6, link_layer, nd, udp
from support.hearing import Send, frame, marked, overhear, ports_of, vlan, who_hears
from support.lan import Lan, running_lan
from support.offload import send_offloaded
from support.rates import flooding
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import IPV4
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import VethVm
from vxagent.lab.waiting import wait_until

VICTIMS_VLAN = 20
MANY = int(os.environ.get("MACS", "10000"))  # a tenth of what an attack would use, and `make leaks` does
S_TAG = 0x88A8

_vids = itertools.count(100)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture(scope="module")
def fabric(lan: Lan) -> Fabric:
    """The physical network."""
    return lan.uplink()


@dataclass(frozen=True)
class Place:
    """The drawing, and a VM of another tenant."""

    segment: str
    vid: int
    victim: VethVm
    mallory: VethVm
    friend: VethVm
    stranger: VethVm


@pytest.fixture
def place(lan: Lan, fabric: Fabric) -> Place:
    """Two segments that an uplink carries."""
    vid, other = next(_vids), next(_vids)
    segment = lan.new_segment(vlan=vid)
    victim, mallory, friend = lan.veths(segment, 3)
    [stranger] = lan.veths(lan.new_segment(tenant="evil", vlan=other), 1)
    return Place(segment, other, victim, mallory, friend, stranger)


def octets(vm: VethVm) -> bytes:
    return bytes.fromhex(vm.mac.replace(":", ""))


def lock(lan: Lan, vm: VethVm) -> None:
    """Hold a port to its VM's addresses."""
    own = {"mac": [vm.mac], "ip": [vm.address, "2001:db8::1"]}
    lan.client.change("PATCH", "v1", "ports", vm.port, body=own)


# --- into another VLAN ----------------------------------------------------------------------------


@pytest.mark.parametrize("send", [send_frames, send_offloaded], ids=["tag in the frame", "tag beside it"])
@pytest.mark.parametrize("outer", [(0x8100, 0), (0x8100, None), (S_TAG, 0), (S_TAG, None), None])
def test_no_tags_lead_into_the_vlan_of_another_tenant(
    lan: Lan, fabric: Fabric, place: Place, outer: tuple[int, int | None] | None, send: Send
) -> None:
    """Double tagging: a switch that takes the first tag off would leave the second one, the stranger's VLAN."""
    own = lan.client.get("v1", "segments", place.segment)["vlan"]
    first = () if outer is None else ((outer[0], own if outer[1] is None else outer[1]),)
    sent = frame("ff:ff:ff:ff:ff:ff", place.mallory.mac, tags=(*first, *vlan(place.vid)))
    ears = place.stranger, place.friend, fabric
    from_mallory = [
        [heard.vid for heard in arrived if heard.source == place.mallory.mac]
        for arrived in overhear(lan, place.mallory, sent, *ears, by=send)
    ]
    assert from_mallory[:2] == [[], []]
    assert set(from_mallory[2]) <= {own}


# --- on the FDB -----------------------------------------------------------------------------------


def speak_as_many(lan: Lan, mallory: VethVm) -> None:
    """MANY MACs that nobody has send a frame each, as fast as mallory can."""
    before = lan.received(mallory.port)
    macs = (f"02:aa:{n >> 16:02x}:{n >> 8 & 0xFF:02x}:{n & 0xFF:02x}:01" for n in range(MANY))
    send_frames(mallory.namespace, "eth0", *(frame("02:bb:00:00:00:01", mac) for mac in macs))
    wait_until(lambda: lan.received(mallory.port) >= before + MANY, what="all of them have a verdict", within=20)


@pytest.mark.parametrize("learn_rate", [1000, 0], ids=["at the default rate", "at any rate"])
def test_a_vm_with_many_macs_takes_nobodys_place_in_the_fdb(lan: Lan, place: Place, learn_rate: int) -> None:
    lan.client.change("PATCH", "v1", "ports", place.mallory.port, body={"learn_rate": learn_rate})
    assert ping(place.victim.namespace, place.friend.address).lost == []
    pinger = Pinger(place.victim.namespace, place.friend.address, interval=0.005).start()
    speak_as_many(lan, place.mallory)
    answered = pinger.pings.received
    wait_until(lambda: pinger.pings.received > answered + 10, what="pings go on")
    assert pinger.stop().lost == []
    shown = lan.show(place.mallory.port)
    assert shown["learned"] <= shown["max_macs"] == 1024
    assert shown["limited"] >= MANY - 1024
    to_friend = frame(place.friend.mac, place.victim.mac)
    assert who_hears(lan, place.victim, to_friend, place.friend, place.mallory) == ports_of(place.friend)


def test_whoever_comes_after_a_vm_with_many_macs_is_learned(lan: Lan, place: Place) -> None:
    speak_as_many(lan, place.mallory)
    [late] = lan.veths(place.segment, 1)
    who_hears(lan, late, frame("ff:ff:ff:ff:ff:ff", late.mac))
    sent = frame(late.mac, place.victim.mac)
    assert who_hears(lan, place.victim, sent, late, place.mallory) == ports_of(late)


# --- on the guards --------------------------------------------------------------------------------

NESTED = 9  # extension headers; eight are looked through


@dataclass(frozen=True)
class Chain:
    """An IPv6 packet that hides what it is, and the reason that it is dropped for, at a port with or without locks."""

    packet: L3
    reason: str
    locked: bool = False


def chains(own: bytes) -> dict[str, Chain]:
    """By name."""
    claim = nd(NA, "2001:db8::666", link_layer(2, own))
    advert = nd(RA, "::", link_layer(1, own))
    many = ((60, 8),) * NESTED
    whole = ipv6(advert, source="fe80::1", extensions=((0, 8),))
    return {
        "an NA behind too many headers": Chain(ipv6(claim, extensions=many), "fragment_denied", locked=True),
        "an NA in a first fragment": Chain(
            ipv6(claim, extensions=((FRAGMENT, 8),), fragment=1), "fragment_denied", locked=True
        ),
        "an RA behind too many headers": Chain(ipv6(advert, source="fe80::1", extensions=many), "fragment_denied"),
        "an RA in a first fragment, behind a header": Chain(
            ipv6(advert, extensions=((60, 16), (FRAGMENT, 8)), source="fe80::1", fragment=1), "ra_denied"
        ),
        "an RA in a first fragment, with a header behind": Chain(
            ipv6(advert, extensions=((FRAGMENT, 8), (60, 8)), source="fe80::1", fragment=1), "ra_denied"
        ),
        "an RA that a first fragment leaves to the next": Chain(
            _cut(ipv6(advert, extensions=((FRAGMENT, 8), (60, 8)), source="fe80::1", fragment=1), 56), "fragment_denied"
        ),
        "a header that is longer than its packet": Chain(_with_byte(whole, 41, 0xFF), "malformed"),
        "a packet that is longer than its frame": Chain(_with_byte(whole, 4, 0x40), "ra_denied"),
    }


def _cut(packet: L3, length: int) -> L3:
    """The packet's first bytes, as a packet."""
    return _with_byte(L3(packet.ethertype, packet.data[:length]), 5, length - 40)


def _with_byte(packet: L3, at: int, value: int) -> L3:
    return L3(packet.ethertype, packet.data[:at] + bytes([value]) + packet.data[at + 1 :])


@pytest.mark.parametrize("name", chains(bytes(6)))
def test_an_ipv6_chain_hides_nothing(lan: Lan, place: Place, name: str) -> None:
    chain = chains(octets(place.mallory))[name]
    if chain.locked:
        lock(lan, place.mallory)
    sent = ethernet(BROADCAST, octets(place.mallory), chain.packet)
    heard = overhear(lan, place.mallory, sent, place.victim, place.friend)
    assert [[got for got in ear if got.source == place.mallory.mac] for ear in heard] == [[], []]
    assert lan.drops(place.mallory.port) == {chain.reason: 1}


@pytest.mark.parametrize("inside", ["DHCPv4", "DHCPv6"])
def test_a_vm_hands_out_no_addresses(lan: Lan, place: Place, inside: str) -> None:
    offer = {
        "DHCPv4": ipv4(udp(bytes(240), source=67, destination=68), source=place.mallory.address),
        "DHCPv6": ipv6(udp(bytes(8), source=547, destination=546), source="fe80::1", extensions=((60, 8),)),
    }[inside]
    sent = ethernet(octets(place.victim), octets(place.mallory), marked(offer))
    assert who_hears(lan, place.mallory, sent, place.victim) == []
    assert lan.drops(place.mallory.port) == {"dhcp_server_denied": 1}


# --- on the neighbours' bandwidth -----------------------------------------------------------------

ROUNDS, PINGS = 3, 60


def test_a_flood_at_full_speed_is_cut_and_costs_the_neighbours_no_answer(lan: Lan, place: Place) -> None:
    """Round trips with the limit are no slower than without it, in turns within one run. How fast the machine is does
    not matter, nor that the sender takes a CPU in either case."""
    a, b = place.victim, place.friend
    ping(a.namespace, b.address)
    rtts: dict[int | None, list[float]] = {None: [], 50: []}
    with flooding(place.mallory, "10.0.0.250", "02:bb:00:00:00:02"):
        for limit in (None, 50) * ROUNDS:
            lan.client.change("PATCH", "v1", "ports", place.mallory.port, body={"storm_unknown": limit})
            before = _limited(lan, place)
            pings = ping(a.namespace, b.address, count=PINGS, interval=0.002, patience=5)
            assert pings.lost == []
            rtts[limit] += pings.rtts_s.values()
            if limit is None:
                assert _limited(lan, place) == before
            else:
                wait_until(partial(_is_limited, lan, place, before), what="the flood is cut")
    assert statistics.median(rtts[50]) < 2 * statistics.median(rtts[None])


def _limited(lan: Lan, place: Place) -> int:
    """Frames of the attacker beyond his limit."""
    return int(lan.show(place.mallory.port)["drops_by_reason"].get("storm_limited", 0))


def _is_limited(lan: Lan, place: Place, before: int) -> bool:
    return _limited(lan, place) > before


# --- on the host ----------------------------------------------------------------------------------

VTEP_ADDRESS, VXLAN_PORT = "198.51.100.1", 4789


def vxlan(vni: int, inner: bytes) -> bytes:
    """RFC 7348, section 5."""
    return struct.pack("!II", 1 << 27, vni << 8) + inner


def test_a_tunnel_that_a_vm_makes_up_is_payload(lan: Lan, place: Place) -> None:
    inner = frame(place.stranger.mac, "02:cc:00:00:00:01")
    packet = ipv4(udp(vxlan(1, inner), destination=VXLAN_PORT), source=place.mallory.address, destination=VTEP_ADDRESS)
    sent = ethernet(octets(place.victim), octets(place.mallory), packet)
    who_hears(lan, place.victim, frame("ff:ff:ff:ff:ff:ff", place.victim.mac))
    assert who_hears(lan, place.mallory, sent, place.victim, place.friend, place.stranger) == ports_of(place.victim)


def test_the_host_gets_no_tunnel_from_a_vm(lan: Lan, place: Place) -> None:
    """Neither by the MAC of the port's own device, nor by the uplink's, though the address is the host's."""
    lan.switch.ip("address", "replace", f"{VTEP_ADDRESS}/32", "dev", "lo")
    inner = frame(place.stranger.mac, "02:cc:00:00:00:01")
    packet = ipv4(udp(vxlan(1, inner), destination=VXLAN_PORT), source=place.mallory.address, destination=VTEP_ADDRESS)
    for device in (place.mallory.port, "up0"):
        host = bytes.fromhex(lan.device(device)["address"].replace(":", ""))
        with Sniffer(lan.switch, place.mallory.port, ethertype=IPV4) as stack:
            sent = ethernet(host, octets(place.mallory), packet)
            assert who_hears(lan, place.mallory, sent, place.stranger) == []
            assert stack.frames() == []

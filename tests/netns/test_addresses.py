"""Ports that list addresses, and the services that a VM may not offer.

   a              b              c
┌──────┐       ┌──────┐       ┌──────┐    VMs on veths; each test has a segment of its own.
│ eth0 │       │ eth0 │       │ eth0 │    VM n: 02:00:00:00:00:NN, 10.0.0.NN, 2001:db8::NN
└──┬───┘       └──┬───┘       └──┬───┘
┌──┴──────────────┴──────────────┴───┐
│  vN             vN             vN  │    a and b list their MAC and their addresses
└────────────────────────────────────┘
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from support import frames
from support.frames import BROADCAST, L3, NA, NS, RA, arp, ethernet, ipv4, ipv6, link_layer, nd, udp
from support.hearing import marked, ports_of, who_hears
from support.ipv6 import PATIENT_MS, address_6, echoes, speak_ipv6
from support.lan import AMOUNT, Lan, assert_connected, running_lan
from vxagent.lab.ping import ping
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, VethVm

FOREIGN, FOREIGN_6, FOREIGN_MAC = "10.0.0.254", "2001:db8::254", frames.mac(254)
LONG = 4000  # bytes of an echo request that goes in three fragments


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


def locked(lan: Lan, segment: str, *ips: str) -> VethVm:
    """A VM whose port lists its MAC and its addresses, and `ips`."""
    vm = lan.veth(lan.unique("v"), None)
    lan.attach(vm.port, segment, mac=[vm.mac], ip=[vm.address, address_6(vm), *ips])
    return vm


def octets(vm: VethVm) -> bytes:
    return bytes.fromhex(vm.mac.replace(":", ""))


# --- what locked ports may do ---------------------------------------------------------------------


def test_locked_ports_talk_ipv4(lan: Lan, blue: str) -> None:
    a, b = (locked(lan, blue) for _ in range(2))
    assert_connected(a, b)
    assert echoes(a, b.address, "-s", str(LONG))
    assert (lan.drops(a.port), lan.drops(b.port)) == ({}, {})


def test_locked_ports_talk_ipv6(lan: Lan, blue: str) -> None:
    a, b = (locked(lan, blue) for _ in range(2))
    for vm in (a, b):
        speak_ipv6(vm)
    for one, other in ((a, b), (b, a)):
        assert echoes(one, address_6(other))
        assert echoes(one, address_6(other), "-s", str(LONG))
        transfer = bulk_tcp(one.namespace, other.namespace, address_6(other), amount=AMOUNT)
        assert transfer.received == AMOUNT
    assert (lan.drops(a.port), lan.drops(b.port)) == ({}, {})


def test_dad_finds_an_address_that_two_ports_list(lan: Lan, blue: str) -> None:
    shared = "2001:db8::77"
    a, b = (locked(lan, blue, shared) for _ in range(2))
    speak_ipv6(a, shared)
    speak_ipv6(b, shared, probe_ms=PATIENT_MS)
    assert "dadfailed" in b.namespace.ip("-6", "address", "show", "dev", NIC)
    assert (lan.drops(a.port), lan.drops(b.port)) == ({}, {})


def test_a_locked_client_gets_dhcp_from_a_trusted_server_alone(lan: Lan, blue: str) -> None:
    client = locked(lan, blue)
    server, rogue = lan.veths(blue, 2)
    lan.client.change("PATCH", "v1", "ports", server.port, body={"trusted": True})
    discover = ipv4(udp(bytes(240), source=68, destination=67), source="0.0.0.0", destination="255.255.255.255")
    asked = ethernet(BROADCAST, octets(client), marked(discover))
    assert who_hears(lan, client, asked, server, rogue) == ports_of(server, rogue)
    for vm, heard in ((server, ports_of(client)), (rogue, [])):
        offer = ipv4(udp(bytes(240), source=67, destination=68), source=vm.address, destination=client.address)
        assert who_hears(lan, vm, ethernet(octets(client), octets(vm), marked(offer)), client) == heard
    assert lan.drops(rogue.port) == {"dhcp_server_denied": 1}
    assert lan.drops(client.port) == lan.drops(server.port) == {}


# --- what they may not ----------------------------------------------------------------------------


def spoofs(vm: VethVm) -> dict[str, tuple[L3, str]]:
    """Name → what a VM may try, and the reason that it is dropped for."""
    own, own_6, own_mac = vm.address, address_6(vm), octets(vm)
    return {
        "IPv4": (ipv4(udp(), source=FOREIGN), "src_ip_denied"),
        "IPv6": (ipv6(udp(), source=FOREIGN_6), "src_ip_denied"),
        "ARP for another address": (arp(FOREIGN, FOREIGN, sender_mac=own_mac), "arp_spoof"),
        "ARP with another MAC": (arp(own, own, sender_mac=FOREIGN_MAC), "arp_spoof"),
        "NA for another address": (ipv6(nd(NA, FOREIGN_6, link_layer(2, own_mac)), source=own_6), "nd_spoof"),
        "NA with another MAC": (ipv6(nd(NA, own_6, link_layer(2, FOREIGN_MAC)), source=own_6), "nd_spoof"),
        "NA behind headers": (ipv6(nd(NA, FOREIGN_6), source=own_6, extensions=((0, 8), (60, 8))), "nd_spoof"),
        "NA in a fragment": (ipv6(nd(NA, FOREIGN_6), source=own_6, extensions=((44, 8),)), "fragment_denied"),
        "DAD of another address": (ipv6(nd(NS, FOREIGN_6), source="::"), "nd_spoof"),
    }


def test_a_locked_port_cannot_pretend(lan: Lan, blue: str) -> None:
    a = locked(lan, blue)
    [b] = lan.veths(blue, 1)
    expected: dict[str, int] = {}
    for name, (inside, reason) in spoofs(a).items():
        assert who_hears(lan, a, ethernet(BROADCAST, octets(a), marked(inside)), b) == [], name
        expected[reason] = expected.get(reason, 0) + 1
        assert lan.drops(a.port) == expected, name


def test_in_shadow_it_can_and_is_counted(lan: Lan, blue: str) -> None:
    """Live, there and back, with counters that people and scripts see."""
    a = locked(lan, blue)
    [b] = lan.veths(blue, 1)
    lan.agent.cli("port", "set", a.port, "--enforce", "shadow")
    expected: Counter[str] = Counter()
    for name, (inside, reason) in spoofs(a).items():
        assert who_hears(lan, a, ethernet(BROADCAST, octets(a), marked(inside)), b) == ports_of(b), name
        expected[reason] += 1
        if reason == "fragment_denied":
            expected["nd_spoof"] += 1  # a second guard has nothing to see either
        assert lan.show(a.port)["shadow_drops"] == expected, name
    shown = lan.show(a.port)
    assert (shown["enforce"], shown["drops"], lan.drops(a.port)) == ("shadow", 0, {})
    rows = lan.client.get("v1", "drops", port=a.port)
    assert {row["reason"]: row["packets"] for row in rows if row["shadow"]} == expected
    assert "shadow" in lan.agent.cli("drops", "--port", a.port).stdout
    lan.agent.cli("port", "set", a.port, "--enforce", "on")
    inside, reason = spoofs(a)["IPv4"]
    assert who_hears(lan, a, ethernet(BROADCAST, octets(a), marked(inside)), b) == []
    assert lan.drops(a.port) == {reason: 1}
    assert lan.show(a.port)["shadow_drops"] == expected


def test_a_port_without_locks_may(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    for name, (inside, _) in spoofs(a).items():
        assert who_hears(lan, a, ethernet(BROADCAST, octets(a), marked(inside)), b) == ports_of(b), name


@pytest.mark.parametrize("extensions", [(), ((0, 8), (43, 8), (60, 16))], ids=["bare", "behind headers"])
def test_a_port_that_is_not_trusted_is_no_router(lan: Lan, blue: str, extensions: tuple[tuple[int, int], ...]) -> None:
    a, b = lan.veths(blue, 2)

    def heard() -> list[str]:
        advert = ipv6(nd(RA, "::", link_layer(1, octets(a))), source="fe80::1", extensions=extensions)
        return who_hears(lan, a, ethernet(bytes.fromhex("333300000001"), octets(a), marked(advert)), b)

    assert heard() == []
    assert lan.drops(a.port) == {"ra_denied": 1}
    lan.agent.cli("port", "set", a.port, "--trusted")
    assert heard() == ports_of(b)
    lan.agent.cli("port", "set", a.port, "--no-trusted")
    assert heard() == []


# --- settable live --------------------------------------------------------------------------------


def test_the_list_is_changed_live(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)

    def answered() -> bool:
        return ping(a.namespace, b.address, count=1, patience=0.3).received == 1

    assert answered()
    for options, expected in (
        (["--ip", FOREIGN], False),
        (["--ip", FOREIGN, "--ip", a.address], True),
        (["--ip", "10.0.1.0/24"], False),
        (["--ip", "10.0.0.0/24"], True),
        (["--ip", FOREIGN_6], False),
        (["--no-ip"], True),
    ):
        done = lan.agent.cli("port", "set", a.port, *options)
        assert done.stderr == ""
        assert answered() == expected, options
        assert lan.show(a.port)["ips"] == [value for value in options if not value.startswith("--")]
    assert lan.drops(a.port).keys() <= {"src_ip_denied", "arp_spoof"}


def test_apply_sets_the_list(lan: Lan, blue: str) -> None:
    a, b = (lan.veth(lan.unique("v"), None) for _ in range(2))

    def apply(ips: str) -> None:
        lan.client.change("POST", "v1", "apply", body={"text": document.replace("IPS", ips)})

    document = f"""
        [[port]]
        ifname = "{a.port}"
        segment = "{blue}"
        ip = [IPS]
        [[port]]
        ifname = "{b.port}"
        segment = "{blue}"
        """
    apply(f'"{FOREIGN}"')
    assert ping(a.namespace, b.address, count=1, patience=0.3).received == 0
    assert lan.drops(a.port) == {"arp_spoof": lan.received(a.port)}
    apply(f'"{a.address}"')
    assert ping(a.namespace, b.address, count=1).received == 1


def test_the_list_outlives_the_agent(lan: Lan, blue: str) -> None:
    a = locked(lan, blue)
    [b] = lan.veths(blue, 1)
    lan.agent.cli("stop")
    lan.agent.up()
    spoofed = ethernet(BROADCAST, octets(a), marked(ipv4(udp(), source=FOREIGN)))
    assert who_hears(lan, a, spoofed, b) == []
    assert ping(a.namespace, b.address).lost == []

"""Access ports: who gets a frame, who does not, and under which reason it is dropped.

   a              b              c              d
┌──────┐       ┌──────┐       ┌──────┐       ┌──────┐    VMs on veths (v…) or taps (t…), 02:00:00:00:00:NN,
│ eth0 │       │ eth0 │       │ eth0 │       │ eth0 │    10.0.0.NN; each test has a segment of its own,
└──┬───┘       └──┬───┘       └──┬───┘       └──┬───┘    and a second one, of another tenant, where it needs it
┌──┴──────────────┴──────────────┴──────────────┴───┐
│  vN             vN             tN             tN  │    switch: one for all tests of this file
└───────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.hearing import frame, hear, ports_of, who_hears
from support.lan import AMOUNT, Lan, assert_apart, assert_connected, running_lan
from vxagent.lab.frames import BROADCAST, Frame
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

NOBODY = "02:00:00:00:99:99"  # nowhere until a test gives it a place
MULTICAST = "01:00:5e:00:00:05"
LONGEST = 1514  # bytes of a frame that is no GSO frame, with an MTU of 1500


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


@pytest.fixture
def red(lan: Lan) -> str:
    """A segment of another tenant."""
    return lan.new_segment(tenant="evil")


def is_gso(arrived: Frame) -> bool:
    return arrived.gso_size > 0 and len(arrived.data) > LONGEST


def vm_on(lan: Lan, kind: str, segment: str | None) -> VethVm | TapVm:
    """A VM on a "veth", a "tap" or a "bare" tap, which takes no offloads."""
    if kind == "veth":
        return lan.veth(lan.unique("v"), segment)
    return lan.tap(lan.unique("t"), segment, offloads=kind == "tap")


# --- 13, 16, 18: learning and flooding ------------------------------------------------------------


def test_unknown_unicast_floods_until_its_destination_has_spoken(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    assert who_hears(lan, a, frame(b.mac, a.mac), a, b, c) == ports_of(b, c)
    assert who_hears(lan, b, frame(a.mac, b.mac), a, b, c) == ports_of(a)
    assert who_hears(lan, a, frame(b.mac, a.mac), a, b, c) == ports_of(b)


def test_unknown_unicast_floods_between_veths_and_taps(lan: Lan, blue: str) -> None:
    a, b = lan.taps(blue, 2)
    c, d = lan.veths(blue, 2)
    assert who_hears(lan, a, frame(NOBODY, a.mac), a, b, c, d) == ports_of(b, c, d)
    assert who_hears(lan, c, frame(NOBODY, c.mac), a, b, c, d) == ports_of(a, b, d)
    assert who_hears(lan, b, frame(c.mac, b.mac), a, b, c, d) == ports_of(c)
    assert who_hears(lan, d, frame(a.mac, d.mac), a, b, c, d) == ports_of(a)


@pytest.mark.parametrize("destination", [BROADCAST, MULTICAST, "33:33:00:00:00:01"])
def test_a_group_address_reaches_every_other_member_once(lan: Lan, blue: str, destination: str) -> None:
    a, b, c = lan.veths(blue, 3)
    [d] = lan.taps(blue, 1)
    assert who_hears(lan, a, frame(destination, a.mac), a, b, c, d) == ports_of(b, c, d)
    assert lan.show(a.port)["verdicts"]["flooded"] == 1


def test_what_arrives_is_what_was_sent(lan: Lan, blue: str) -> None:
    a, b, c = (vm_on(lan, kind, blue) for kind in ("veth", "tap", "veth"))
    sent = frame(BROADCAST, a.mac, size=1500)
    assert hear(lan, a, sent, b, c) == [[Frame(data=sent)], [Frame(data=sent)]]
    back = frame(a.mac, b.mac, size=1500)
    assert hear(lan, b, back, a) == [[Frame(data=back)]]


def test_a_mac_that_moves_is_found_at_its_new_port(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    who_hears(lan, b, frame(BROADCAST, NOBODY))
    assert who_hears(lan, a, frame(NOBODY, a.mac), b, c) == ports_of(b)
    who_hears(lan, c, frame(BROADCAST, NOBODY))
    assert who_hears(lan, a, frame(NOBODY, a.mac), b, c) == ports_of(c)
    assert lan.show(c.port)["moved"] == 1
    assert [lan.show(vm.port)["learned"] for vm in (b, c)] == [0, 1]


def test_a_port_learns_no_more_macs_than_its_quota_and_still_sends(lan: Lan, blue: str) -> None:
    a = lan.veth(lan.unique("v"), blue, max_macs=2)
    b, c = lan.veths(blue, 2)
    first, second, third = (f"02:00:00:01:00:{n:02x}" for n in range(3))
    for mac in (first, second, third):
        assert who_hears(lan, a, frame(BROADCAST, mac), b, c) == ports_of(b, c)
    assert who_hears(lan, b, frame(second, b.mac), a, c) == ports_of(a)
    assert who_hears(lan, b, frame(third, b.mac), a, c) == ports_of(a, c)
    shown = lan.show(a.port)
    assert (shown["learned"], shown["limited"], shown["drops"]) == (2, 1, 0)


def test_a_learned_entry_ages_out_as_set_by_reload(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    who_hears(lan, b, frame(BROADCAST, b.mac))
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b)
    lan.agent.config_file.write_text("ageing_s = 1\n")
    lan.agent.cli("reload")
    try:
        wait_until(lambda: who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b, c), what="b is forgotten")
        who_hears(lan, b, frame(BROADCAST, b.mac))
        assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b)
        wait_until(lambda: lan.entry(blue, b.mac) is None, what="b is listed no more")
    finally:
        lan.agent.config_file.write_text("")
        lan.agent.cli("reload")


def test_a_flush_forgets_what_one_port_learned(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    for vm in (b, c):
        who_hears(lan, vm, frame(BROADCAST, vm.mac))
    lan.agent.cli("fdb", "flush", "--port", b.port)
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b, c)
    assert who_hears(lan, a, frame(c.mac, a.mac), b, c) == ports_of(c)


def test_a_flush_forgets_what_one_segment_learned_and_no_static_entry(lan: Lan, blue: str, red: str) -> None:
    a, b, c = lan.veths(blue, 3)
    d, e, f = lan.veths(red, 3)
    for vm in (b, e):
        who_hears(lan, vm, frame(BROADCAST, vm.mac))
    lan.agent.cli("fdb", "add", NOBODY, "--segment", blue, "--port", b.port)
    lan.agent.cli("fdb", "flush", "--segment", blue)
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == ports_of(b, c)
    assert who_hears(lan, a, frame(NOBODY, a.mac), b, c) == ports_of(b)
    assert who_hears(lan, d, frame(e.mac, d.mac), e, f) == ports_of(e)


def test_a_static_entry_leads_to_its_port_and_nobody_else_may_use_its_mac(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    lan.agent.cli("fdb", "add", NOBODY, "--segment", blue, "--port", b.port)
    assert who_hears(lan, a, frame(NOBODY, a.mac), b, c) == ports_of(b)
    assert who_hears(lan, c, frame(BROADCAST, NOBODY), a, b) == []
    assert lan.drops(c.port) == {"src_mac_conflict": 1}
    assert who_hears(lan, b, frame(BROADCAST, NOBODY), a, c) == ports_of(a, c)
    lan.agent.cli("fdb", "del", NOBODY, "--segment", blue)
    assert who_hears(lan, c, frame(BROADCAST, NOBODY), a, b) == ports_of(a, b)


def test_a_veth_whose_other_end_is_in_another_namespace_is_bypassed(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    who_hears(lan, b, frame(BROADCAST, b.mac))
    device, port = lan.statistics(b.port)["tx"], lan.show(b.port)["tx_packets"]
    send_frames(a.namespace, NIC, *(frame(b.mac, a.mac) for _ in range(10)))
    wait_until(lambda: lan.show(b.port)["tx_packets"] == port + 10, what="ten frames for b")
    assert lan.statistics(b.port)["tx"] == device  # they did not go through it, but straight to its peer


def test_a_veth_whose_other_end_is_in_the_switchs_namespace_is_a_port_too(lan: Lan, blue: str) -> None:
    [a] = lan.veths(blue, 1)
    port, here = lan.unique("v"), lan.unique("w")
    lan.switch.ip("link", "add", port, "type", "veth", "peer", "name", here)
    lan.switch.ip("link", "set", here, "up")
    lan.attach(port, blue)
    lan.switch.wait_running(here)
    with Sniffer(lan.switch, here) as ear, Sniffer(a.namespace, NIC) as at_a:
        send_frames(lan.switch, here, there := frame(BROADCAST, NOBODY))
        at_a.wait_for(lambda arrived: arrived.data == there)
        send_frames(a.namespace, NIC, back := frame(NOBODY, a.mac))
        ear.wait_for(lambda arrived: arrived.data == back)


# --- bulk, and GSO frames that stay whole ---------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"), [("veth", "veth"), ("veth", "tap"), ("tap", "tap"), ("veth", "bare"), ("tap", "bare")]
)
def test_bulk_tcp_flows_both_ways(lan: Lan, blue: str, one: str, other: str) -> None:
    assert_connected(vm_on(lan, one, blue), vm_on(lan, other, blue))


@pytest.mark.parametrize(("one", "other"), [("veth", "veth"), ("veth", "tap"), ("tap", "veth"), ("tap", "tap")])
def test_gso_frames_arrive_whole(lan: Lan, blue: str, one: str, other: str) -> None:
    a, b = vm_on(lan, one, blue), vm_on(lan, other, blue)
    with Sniffer(b.namespace, NIC) as at_b:
        assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT).received == AMOUNT
        assert at_b.frames(is_gso)


@pytest.mark.parametrize("one", ["veth", "tap"])
def test_a_tap_without_offloads_gets_gso_frames_cut(lan: Lan, blue: str, one: str) -> None:
    a, b = vm_on(lan, one, blue), vm_on(lan, "bare", blue)
    with Sniffer(b.namespace, NIC) as at_b:
        assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT).received == AMOUNT
        assert max(len(arrived.data) for arrived in at_b.frames()) == LONGEST


def test_a_flooded_gso_frame_arrives_whole_everywhere(lan: Lan, blue: str) -> None:
    a, c = lan.tap(lan.unique("t"), blue), lan.veth(lan.unique("v"), blue)
    b = lan.tap(lan.unique("t"), blue, max_macs=0)  # never learned: all that is for it floods
    with Sniffer(c.namespace, NIC) as at_c:
        assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT).received == AMOUNT
        assert at_c.frames(is_gso)
    assert lan.show(a.port)["verdicts"]["flooded"] > 0


# --- promise 1: tenants and segments --------------------------------------------------------------


def test_tenants_with_the_same_macs_and_addresses_do_not_meet(lan: Lan, blue: str, red: str) -> None:
    same = ("02:00:00:00:aa:01", "10.9.0.1"), ("02:00:00:00:aa:02", "10.9.0.2")
    a, b = (lan.veth(lan.unique("v"), blue, mac=mac, address=address) for mac, address in same)
    c, d = (lan.tap(lan.unique("t"), red, mac=mac, address=address) for mac, address in same)
    with Sniffer(c.namespace, NIC) as at_c, Sniffer(d.namespace, NIC) as at_d:
        assert_connected(a, b)
        assert who_hears(lan, a, frame(BROADCAST, a.mac), b, c, d) == ports_of(b)
        assert not at_c.frames(lambda arrived: arrived.source in (a.mac, b.mac))
        assert not at_d.frames(lambda arrived: arrived.source in (a.mac, b.mac))
    assert_connected(c, d)


def test_segments_of_one_tenant_do_not_meet_either(lan: Lan, blue: str) -> None:
    [a] = lan.veths(blue, 1)
    [b] = lan.veths(lan.new_segment(), 1)
    assert_apart(a, b)
    assert who_hears(lan, a, frame(BROADCAST, a.mac), b) == []
    assert who_hears(lan, a, frame(b.mac, a.mac), b) == []


def test_a_port_that_moves_to_another_segment_leaves_the_old_one(lan: Lan, blue: str) -> None:
    other = lan.new_segment()
    a, b = lan.veths(blue, 2)
    [c] = lan.veths(other, 1)
    assert_connected(a, b)
    lan.agent.cli("port", "set", b.port, "--segment", other)
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == []
    assert who_hears(lan, b, frame(BROADCAST, b.mac), a, c) == ports_of(c)
    assert_connected(b, c)


# --- 2, 4: what nobody may send -------------------------------------------------------------------


@pytest.mark.parametrize("last", ["00", "01", "0e", "0f"])
def test_link_local_frames_of_a_vm_are_dropped(lan: Lan, blue: str, last: str) -> None:
    a, b = lan.veths(blue, 2)
    assert who_hears(lan, a, frame(f"01:80:c2:00:00:{last}", a.mac), b) == []
    assert lan.drops(a.port) == {"link_local": 1}


def test_the_address_after_the_link_local_ones_is_flooded(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    assert who_hears(lan, a, frame("01:80:c2:00:00:10", a.mac), b) == ports_of(b)


@pytest.mark.parametrize("source", ["03:00:00:00:00:01", BROADCAST, "00:00:00:00:00:00"])
def test_a_source_that_can_be_nobodys_is_dropped(lan: Lan, blue: str, source: str) -> None:
    a, b = lan.veths(blue, 2)
    assert who_hears(lan, a, frame(b.mac, source), b) == []
    assert who_hears(lan, a, frame(BROADCAST, source), b) == []
    assert lan.drops(a.port) == {"src_invalid": 2}


# --- 5, 6: MAC locks ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_port_that_lists_macs_sends_from_no_other(lan: Lan, blue: str, kind: str) -> None:
    a = vm_on(lan, kind, None)
    lan.attach(a.port, blue, mac=["02:00:00:00:bb:01", "02:00:00:00:bb:02"])
    [b] = lan.veths(blue, 1)
    for listed in ("02:00:00:00:bb:01", "02:00:00:00:bb:02"):
        assert who_hears(lan, a, frame(BROADCAST, listed), b) == ports_of(b)
    assert who_hears(lan, a, frame(BROADCAST, "02:00:00:00:bb:03"), b) == []
    assert lan.drops(a.port) == {"src_mac_denied": 1}
    lan.agent.cli("port", "set", a.port, "--no-mac")
    assert who_hears(lan, a, frame(BROADCAST, "02:00:00:00:bb:03"), b) == ports_of(b)


def test_a_listed_mac_is_found_before_it_has_spoken(lan: Lan, blue: str) -> None:
    a, c = lan.veths(blue, 2)
    b = lan.veth(lan.unique("v"), None)
    lan.attach(b.port, blue, mac=["02:00:00:00:bb:10"])
    assert who_hears(lan, a, frame("02:00:00:00:bb:10", a.mac), b, c) == ports_of(b)


def test_a_listed_mac_cannot_be_used_by_another_port(lan: Lan, blue: str) -> None:
    victim = lan.veth(lan.unique("v"), None)
    lan.attach(victim.port, blue, mac=["02:00:00:00:bb:20"])
    thief, peer = lan.veths(blue, 2)
    assert who_hears(lan, thief, frame(peer.mac, "02:00:00:00:bb:20"), victim, peer) == []
    assert lan.drops(thief.port) == {"src_mac_conflict": 1}
    assert who_hears(lan, peer, frame("02:00:00:00:bb:20", peer.mac), victim, thief) == ports_of(victim)


def test_the_same_listed_mac_in_another_segment_is_no_conflict(lan: Lan, blue: str, red: str) -> None:
    owner = lan.veth(lan.unique("v"), None)
    lan.attach(owner.port, blue, mac=["02:00:00:00:bb:30"])
    a, b = lan.veths(red, 2)
    assert who_hears(lan, a, frame(BROADCAST, "02:00:00:00:bb:30"), b) == ports_of(b)


# --- 14: hairpin and isolation --------------------------------------------------------------------


def test_a_frame_for_its_own_port_is_dropped(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    who_hears(lan, a, frame(BROADCAST, NOBODY))
    assert who_hears(lan, a, frame(NOBODY, a.mac), a, b) == []
    assert lan.drops(a.port) == {"hairpin": 1}


def test_isolated_ports_exchange_nothing_and_reach_all_others(lan: Lan, blue: str) -> None:
    a = lan.veth(lan.unique("v"), blue, isolated=True)
    b = lan.tap(lan.unique("t"), blue, isolated=True)
    [c] = lan.veths(blue, 1)
    assert who_hears(lan, a, frame(BROADCAST, a.mac), b, c) == ports_of(c)
    assert who_hears(lan, b, frame(BROADCAST, b.mac), a, c) == ports_of(c)
    assert who_hears(lan, a, frame(b.mac, a.mac), b, c) == []
    assert who_hears(lan, a, frame(NOBODY, a.mac), b, c) == ports_of(c)
    assert lan.drops(a.port) == {"isolated": 1}
    assert_connected(a, c)
    assert_connected(b, c)


def test_isolation_is_lifted_live(lan: Lan, blue: str) -> None:
    a, b = (lan.veth(lan.unique("v"), blue, isolated=True) for _ in range(2))
    assert_apart(a, b)
    lan.agent.cli("port", "set", b.port, "--no-isolated")
    assert_connected(a, b)


# --- 15: MTU --------------------------------------------------------------------------------------


def test_a_frame_longer_than_the_segments_mtu_is_dropped(lan: Lan) -> None:
    small = lan.new_segment(mtu=1000)
    a, b = lan.veths(small, 2)
    for receiver in (b.mac, BROADCAST):
        assert who_hears(lan, a, frame(receiver, a.mac, size=1000), b) == ports_of(b)
        assert who_hears(lan, a, frame(receiver, a.mac, size=1001), b) == []
    assert lan.drops(a.port) == {"mtu_exceeded": 2}


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_gso_frames_count_by_their_segments(lan: Lan, kind: str) -> None:
    small = lan.new_segment(mtu=1000)
    a, b = vm_on(lan, kind, small), vm_on(lan, kind, small)
    for vm in (a, b):
        vm.namespace.ip("link", "set", NIC, "mtu", "1000")
    with Sniffer(b.namespace, NIC) as at_b:
        assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT).received == AMOUNT
        assert at_b.frames(is_gso)
    assert lan.drops(a.port) == {}


def test_gso_frames_with_segments_beyond_the_mtu_are_dropped(lan: Lan) -> None:
    small = lan.new_segment(mtu=1000)
    a, b = lan.veths(small, 2)
    assert ping(a.namespace, b.address).lost == []  # which fits, and so says nothing about bulk
    assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT, within=0.3).received == 0
    assert set(lan.drops(a.port)) == {"mtu_exceeded"}


def test_a_segments_mtu_is_set_live(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    lan.agent.cli("segment", "set", blue, "--mtu", "1000")
    assert who_hears(lan, a, frame(b.mac, a.mac, size=1500), b) == []
    lan.agent.cli("segment", "set", blue, "--mtu", "1500")
    assert who_hears(lan, a, frame(b.mac, a.mac, size=1500), b) == ports_of(b)


def test_jumbo_frames_pass_where_the_segment_allows_them(lan: Lan) -> None:
    large = lan.new_segment(mtu=9000)
    names = [lan.unique("t") for _ in range(2)]
    a, b = (
        lan.world.tap_vm(lan.switch, name, mac=f"02:00:00:00:cc:0{n}", address=f"10.0.9.{n}", mtu=9000, offloads=False)
        for n, name in enumerate(names, 1)
    )
    for vm in (a, b):
        lan.attach(vm.port, large)
    with Sniffer(b.namespace, NIC) as at_b:
        assert_connected(a, b)
        assert max(len(arrived.data) for arrived in at_b.frames()) == 9014


# --- 17, 21: nowhere to go ------------------------------------------------------------------------


def test_unknown_unicast_is_dropped_where_the_segment_says_so(lan: Lan) -> None:
    strict = lan.new_segment(unknown_unicast="drop")
    a, b = lan.veths(strict, 2)
    assert who_hears(lan, a, frame(b.mac, a.mac), b) == []
    assert lan.drops(a.port) == {"unknown_unicast": 1}
    assert who_hears(lan, a, frame(BROADCAST, a.mac), b) == ports_of(b)
    assert who_hears(lan, b, frame(a.mac, b.mac), a) == ports_of(a)
    assert_connected(a, b)


def test_unknown_unicast_floods_again_as_set_live(lan: Lan) -> None:
    segment = lan.new_segment(unknown_unicast="drop")
    a, b = lan.veths(segment, 2)
    lan.agent.cli("segment", "set", segment, "--unknown-unicast", "flood")
    assert who_hears(lan, a, frame(NOBODY, a.mac), b) == ports_of(b)


def test_a_known_destination_without_a_device_is_dropped_and_not_flooded(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    lan.agent.cli("fdb", "add", NOBODY, "--segment", blue, "--port", b.port)
    b.unplug()
    wait_until(lambda: lan.state(b.port) == "pending", what="b's port is pending")
    assert who_hears(lan, a, frame(NOBODY, a.mac), c) == []
    assert lan.drops(a.port) == {"no_destination": 1}


def test_a_detached_vm_hears_and_says_nothing(lan: Lan, blue: str) -> None:
    a, b, c = lan.veths(blue, 3)
    assert_connected(a, b)
    with Sniffer(b.namespace, NIC) as at_b, Sniffer(c.namespace, NIC) as at_c:
        lan.agent.cli("port", "detach", b.port)
        at_b.forget()
        assert ping(b.namespace, a.address, count=2, patience=0.1).received == 0
        assert who_hears(lan, a, frame(b.mac, a.mac), c) == ports_of(c)
        assert at_b.frames() == []
        assert not at_c.frames(lambda arrived: arrived.source == b.mac)
    assert lan.entry(blue, b.mac) is None

"""Trunk ports and tags: which segment a frame belongs to, and with which tag it leaves.

   a, b (acme)       trunk (acme)                 other trunk (acme)        x (evil)
┌──────────┐   ┌───────────────────────┐   ┌───────────────────────┐      ┌──────┐
│   eth0   │   │ VID 10 → s1           │   │ VID 110 → s1          │      │ eth0 │
└────┬─────┘   │ VID 20 → s2           │   │ VID 20 → s2           │      └──┬───┘
     │         │ untagged → s3         │   │                       │         │
┌────┴─────┐   └───────────┬───────────┘   └───────────┬───────────┘      ┌──┴───┐
│ vN in s1 │            trunk                       second                │ vN   │   VID 20 is also what
└──────────┘   switch: one for all tests of this file                     └──────┘   evil's segment has as VLAN

Behind a trunk port a process puts tags on and takes them off, so that there are hosts in every VLAN.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from support.hearing import Send, frame, hear, ports_of, vlan, who_hears
from support.lan import AMOUNT, Lan, assert_apart, assert_connected, running_lan
from support.offload import send_offloaded
from vxagent.lab.fabric import TRUNK, Fabric
from vxagent.lab.frames import BROADCAST, Frame
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.tap import Pump, open_tap
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, Endpoint, VethVm
from vxagent.lab.waiting import wait_until

C_TAG, S_TAG = 0x8100, 0x88A8
Vms = dict[str, VethVm]
Tags = tuple[tuple[int, int], ...]

PCP_5 = 5 << 13
DEI = 1 << 12

BOTH_WAYS = pytest.mark.parametrize("send", [send_frames, send_offloaded], ids=["in the frame", "beside the frame"])
"""Where the outermost tag is when the frame reaches the switch."""


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file: segments s1 to s3 of acme, and evil's."""
    with running_lan() as lan:
        for name in ("s1", "s2", "s3"):
            lan.segment(name)
        lan.segment("theirs", tenant="evil", vlan=20)
        yield lan


@pytest.fixture(scope="module")
def trunk(lan: Lan) -> Fabric:
    fabric = lan.world.fabric(lan.switch, "trunk")
    lan.attach("trunk", trunk=["s1:10", "s2:20"], native="s3")
    return fabric


@pytest.fixture(scope="module")
def second(lan: Lan) -> Fabric:
    """A trunk port with another VID for s1, and without a native segment."""
    fabric = lan.world.fabric(lan.switch, "second")
    lan.attach("second", trunk=["s1:110", "s2:20"])
    return fabric


@pytest.fixture(scope="module")
def vms(lan: Lan) -> Vms:
    """A VM on an access port for each segment, by its name."""
    return {segment: lan.veth(f"in-{segment}", segment) for segment in ("s1", "s2", "s3", "theirs")}


@pytest.fixture
def source(lan: Lan) -> str:
    """A MAC that nobody has used yet."""
    return f"02:00:00:01:00:{int(lan.unique('')) & 0xFF:02x}"


# --- 3, 16, 18: classification, and the tag on the way out ----------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize(("tags", "segment"), [(vlan(10), "s1"), (vlan(20), "s2")])
def test_a_vid_leads_to_its_segment_and_no_other(
    lan: Lan, trunk: Fabric, vms: Vms, source: str, tags: Tags, segment: str, send: Send
) -> None:
    sent = frame(BROADCAST, source, tags=tags)
    heard = dict(zip(vms, hear(lan, trunk, sent, *vms.values(), by=send), strict=True))
    assert [name for name, copies in heard.items() if copies] == [segment]
    assert [copy.tags for copy in heard[segment]] == [()]


def test_untagged_frames_lead_to_the_native_segment(lan: Lan, trunk: Fabric, vms: Vms, source: str) -> None:
    assert who_hears(lan, trunk, frame(BROADCAST, source), *vms.values()) == ports_of(vms["s3"])


@BOTH_WAYS
def test_a_priority_tag_counts_as_untagged(lan: Lan, trunk: Fabric, vms: Vms, source: str, send: Send) -> None:
    sent = frame(BROADCAST, source, tags=vlan(PCP_5))
    assert who_hears(lan, trunk, sent, *vms.values(), by=send) == ports_of(vms["s3"])


@pytest.mark.parametrize(("segment", "tags"), [("s1", vlan(10)), ("s2", vlan(20)), ("s3", ())])
def test_frames_for_a_trunk_are_tagged_with_its_vid(
    lan: Lan, trunk: Fabric, vms: Vms, source: str, segment: str, tags: Tags
) -> None:
    sender = vms[segment]
    flooded = hear(lan, sender, frame(BROADCAST, sender.mac), trunk)
    who_hears(lan, trunk, frame(BROADCAST, source, tags=tags))
    forwarded = hear(lan, sender, frame(source, sender.mac), trunk)
    assert [copy.tags for copy in flooded[0] + forwarded[0]] == [tags, tags]


def test_no_frame_of_another_tenant_leaves_through_a_trunk(lan: Lan, trunk: Fabric, second: Fabric, vms: Vms) -> None:
    sender = vms["theirs"]
    assert who_hears(lan, sender, frame(BROADCAST, sender.mac), trunk, second) == []


def test_a_trunk_does_not_join_its_segments(lan: Lan, trunk: Fabric, vms: Vms, source: str) -> None:
    who_hears(lan, trunk, frame(BROADCAST, source, tags=vlan(20)))
    assert who_hears(lan, vms["s1"], frame(BROADCAST, vms["s1"].mac), vms["s2"], vms["s3"]) == []
    assert who_hears(lan, trunk, frame(vms["s2"].mac, source, tags=vlan(10)), vms["s2"]) == []


@BOTH_WAYS
def test_between_trunks_the_vid_is_translated_and_the_priority_kept(
    lan: Lan, trunk: Fabric, second: Fabric, source: str, send: Send
) -> None:
    sent = frame(BROADCAST, source, tags=vlan(10 | PCP_5 | DEI))
    [flooded] = hear(lan, trunk, sent, second, by=send)
    assert [copy.tags for copy in flooded] == [vlan(110 | PCP_5 | DEI)]
    back = frame(source, "02:00:00:01:99:99", tags=vlan(110 | PCP_5))
    [forwarded] = hear(lan, second, back, trunk, by=send)
    assert [copy.tags for copy in forwarded] == [vlan(10 | PCP_5)]


def test_the_priority_of_a_vm_without_vlan_reaches_a_trunk(lan: Lan, trunk: Fabric, vms: Vms) -> None:
    sent = frame(BROADCAST, vms["s1"].mac, tags=vlan(PCP_5))
    [heard] = hear(lan, vms["s1"], sent, trunk)
    assert [copy.tags for copy in heard] == [vlan(10 | PCP_5)]


@pytest.mark.parametrize("tags", [vlan(11), vlan(4094), vlan(4095), (), vlan(PCP_5)])
def test_what_a_trunks_map_does_not_name_is_dropped(
    lan: Lan, second: Fabric, vms: Vms, source: str, tags: Tags
) -> None:
    before = lan.drops("second").get("vlan_denied", 0)
    assert who_hears(lan, second, frame(BROADCAST, source, tags=tags), *vms.values()) == []
    assert lan.drops("second")["vlan_denied"] == before + 1


def test_a_trunks_map_changes_live(lan: Lan) -> None:
    one, other = lan.new_segment(), lan.new_segment()
    fabric = lan.world.fabric(lan.switch, "changing")
    [a], [b] = lan.veths(one, 1), lan.veths(other, 1)
    lan.attach("changing", trunk=[f"{one}:10"])
    assert who_hears(lan, fabric, frame(BROADCAST, "02:00:00:02:00:01", tags=vlan(10)), a, b) == ports_of(a)
    lan.agent.cli("port", "set", "changing", "--trunk", f"{other}:10,{one}:30")
    assert who_hears(lan, fabric, frame(BROADCAST, "02:00:00:02:00:01", tags=vlan(10)), a, b) == ports_of(b)
    assert [copy.tags for copy in hear(lan, a, frame(BROADCAST, a.mac), fabric)[0]] == [vlan(30)]
    lan.agent.cli("port", "set", "changing", "--trunk", f"{other}:10", "--native", one)
    assert who_hears(lan, fabric, frame(BROADCAST, "02:00:00:02:00:01", tags=vlan(30)), a, b) == []
    assert [copy.tags for copy in hear(lan, a, frame(BROADCAST, a.mac), fabric)[0]] == [()]
    lan.agent.cli("port", "set", "changing", "--no-native")
    assert who_hears(lan, a, frame(BROADCAST, a.mac), fabric) == []


# --- 3: tags that may not lead anywhere -----------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("vid", [10, 20, 99])
def test_a_tag_on_an_access_port_is_dropped(
    lan: Lan, trunk: Fabric, second: Fabric, vms: Vms, vid: int, send: Send
) -> None:
    before = lan.drops("in-s1").get("vlan_denied", 0)
    sent = frame(BROADCAST, vms["s1"].mac, tags=vlan(vid))
    assert who_hears(lan, vms["s1"], sent, trunk, second, *vms.values(), by=send) == []
    assert lan.drops("in-s1")["vlan_denied"] == before + 1


@BOTH_WAYS
@pytest.mark.parametrize("tci", [0, PCP_5])
def test_a_priority_tag_on_an_access_port_is_taken_off(lan: Lan, vms: Vms, tci: int, send: Send) -> None:
    [peer] = lan.veths("s1", 1)
    sent = frame(BROADCAST, vms["s1"].mac, tags=vlan(tci))
    [flooded] = hear(lan, vms["s1"], sent, peer, by=send)
    who_hears(lan, peer, frame(BROADCAST, peer.mac))
    [forwarded] = hear(lan, vms["s1"], frame(peer.mac, vms["s1"].mac, tags=vlan(tci)), peer, by=send)
    assert [copy.tags for copy in flooded + forwarded] == [(), ()]


def test_a_priority_tag_of_a_tap_vm_is_taken_off(lan: Lan, vms: Vms) -> None:
    [tap] = lan.taps("s1", 1)
    [heard] = hear(lan, tap, frame(BROADCAST, tap.mac, tags=vlan(PCP_5)), vms["s1"])
    assert [copy.tags for copy in heard] == [()]


@BOTH_WAYS
@pytest.mark.parametrize("tci", [0, 10, 20])
@pytest.mark.parametrize("name", ["trunk", "in-s1"])
def test_an_outermost_service_tag_is_dropped(
    lan: Lan, trunk: Fabric, second: Fabric, vms: Vms, source: str, name: str, tci: int, send: Send
) -> None:
    sender = trunk if name == "trunk" else vms["s1"]
    before = lan.drops(name).get("vlan_denied", 0)
    sent = frame(BROADCAST, source, tags=((S_TAG, tci),))
    assert who_hears(lan, sender, sent, second, trunk, *vms.values(), by=send) == []
    assert lan.drops(name)["vlan_denied"] == before + 1


@BOTH_WAYS
@pytest.mark.parametrize("inner", [C_TAG, S_TAG])
@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_tag_behind_a_priority_tag_does_not_come_out(
    lan: Lan, second: Fabric, vms: Vms, inner: int, kind: str, send: Send
) -> None:
    """VID 0 + VID 20, sent by a VM: taking off the first tag must not leave the second one to be believed."""
    sender = lan.veth(lan.unique("v"), "s1") if kind == "veth" else lan.tap(lan.unique("t"), "s1")
    who_hears(lan, vms["s1"], frame(BROADCAST, vms["s1"].mac))
    tags = ((C_TAG, 0), (inner, 20))
    for destination in (BROADCAST, vms["s1"].mac, vms["s2"].mac):
        arrived = hear(lan, sender, frame(destination, sender.mac, tags=tags), second, *vms.values(), by=send)
        assert not any(arrived[1:])
        # On a trunk it stays in its segment: the second tag is payload behind this segment's own.
        on_trunk = [] if destination == vms["s1"].mac else [((C_TAG, 110), (inner, 20))]
        assert [copy.tags for copy in arrived[0]] == on_trunk


@BOTH_WAYS
@pytest.mark.parametrize("inner", [C_TAG, S_TAG])
def test_a_tag_behind_a_trunks_tag_stays_payload(
    lan: Lan, trunk: Fabric, second: Fabric, vms: Vms, source: str, inner: int, send: Send
) -> None:
    tags = ((C_TAG, 10), (inner, 20))
    heard = hear(lan, trunk, frame(BROADCAST, source, tags=tags), second, *vms.values(), by=send)
    assert [copy.tags for copy in heard[0]] == [((C_TAG, 110), (inner, 20))]
    assert not any(heard[1:])


def test_a_known_destination_that_would_get_a_second_tag_untagged_is_denied(
    lan: Lan, trunk: Fabric, vms: Vms, source: str
) -> None:
    who_hears(lan, vms["s1"], frame(BROADCAST, vms["s1"].mac))
    before = lan.drops("trunk").get("vlan_denied", 0)
    sent = frame(vms["s1"].mac, source, tags=vlan(10, 20))
    assert who_hears(lan, trunk, sent, *vms.values()) == []
    assert lan.drops("trunk")["vlan_denied"] == before + 1


@BOTH_WAYS
def test_a_tag_behind_the_native_segments_priority_tag_does_not_come_out(
    lan: Lan, trunk: Fabric, second: Fabric, vms: Vms, source: str, send: Send
) -> None:
    sent = frame(BROADCAST, source, tags=vlan(0, 20))
    assert who_hears(lan, trunk, sent, second, *vms.values(), by=send) == []


# --- bulk -----------------------------------------------------------------------------------------


def host_behind(fabric: Fabric, vid: int | None, number: int) -> Endpoint:
    return fabric.host(vid, mac=f"02:00:00:03:00:{number:02x}", address=f"10.0.0.{200 + number}")


def test_a_trunk_carries_bulk_tcp_in_each_of_its_vlans(lan: Lan, trunk: Fabric, vms: Vms) -> None:
    vlans = [("s1", 10), ("s2", 20), ("s3", None)]
    hosts = {segment: host_behind(trunk, vid, number) for number, (segment, vid) in enumerate(vlans)}
    for segment, host in hosts.items():
        assert_connected(host, vms[segment])
    assert_apart(hosts["s1"], vms["s2"])
    assert_apart(hosts["s3"], vms["s1"])
    with trunk.sniff() as wire:
        there = hosts["s1"]
        assert bulk_tcp(vms["s1"].namespace, there.namespace, there.address, amount=AMOUNT).received == AMOUNT
        assert wire.frames(lambda arrived: arrived.gso_size > 0 and arrived.vid == 10)


def test_trunks_with_different_vids_carry_bulk_tcp_between_them(lan: Lan) -> None:
    segment = lan.new_segment()
    fabrics = [lan.world.fabric(lan.switch, name) for name in ("left", "right")]
    lan.attach("left", trunk=[f"{segment}:5"])
    lan.attach("right", trunk=[f"{segment}:6"])
    left, right = host_behind(fabrics[0], 5, 10), host_behind(fabrics[1], 6, 11)
    with fabrics[1].sniff() as wire:
        assert_connected(left, right)
        assert {arrived.vid for arrived in wire.frames()} == {6}
        assert wire.frames(lambda arrived: arrived.gso_size > 0)


def test_a_trunk_on_a_tap_carries_bulk_tcp(lan: Lan) -> None:
    segment = lan.new_segment()
    [vm] = lan.veths(segment, 1)
    guest = Endpoint(namespace=lan.world.namespace("guest"), mac="02:00:00:03:00:20", address="10.0.0.220")
    outer, inner = open_tap(lan.switch, "trunktap"), open_tap(guest.namespace, NIC)
    try:
        hypervisor = Pump(("tap", outer), {"10": inner})
    finally:
        os.close(outer)
        os.close(inner)
    lan.world.cleanup.callback(hypervisor.stop)
    guest.configure(mtu=1500)
    lan.attach("trunktap", trunk=[f"{segment}:10"])
    assert_connected(guest, vm)
    with Sniffer(vm.namespace, NIC) as at_vm:
        assert bulk_tcp(guest.namespace, vm.namespace, vm.address, amount=AMOUNT).received == AMOUNT
        assert at_vm.frames(lambda arrived: arrived.gso_size > 0 and not arrived.tags)


def test_frames_of_one_burst_do_not_mix(lan: Lan, trunk: Fabric, vms: Vms, source: str) -> None:
    tags = {"s1": vlan(10), "s2": vlan(20), "s3": ()}
    sent = {name: [frame(BROADCAST, source, tags=tags[name]) for _ in range(20)] for name in tags}

    def ours(ear: Sniffer) -> list[Frame]:
        return ear.frames(lambda arrived: arrived.source == source)

    def enough(ear: Sniffer) -> bool:
        return len(ours(ear)) >= 20

    with ExitStack() as stack:
        ears = {name: stack.enter_context(Sniffer(vms[name].namespace, NIC)) for name in tags}
        send_frames(trunk.namespace, TRUNK, *(one for three in zip(*sent.values(), strict=True) for one in three))
        for name, ear in ears.items():
            wait_until(partial(enough, ear), what=f"all frames for {name}")
            assert [arrived.payload for arrived in ours(ear)] == [one[-46:] for one in sent[name]]

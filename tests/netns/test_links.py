"""`netlink.links` on real devices, in a namespace of their own."""

from __future__ import annotations

import os
import queue
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from vxagent.core.effects import InternalPair, MakeInternal, RemoveInternal, SetDevice, SetQueue
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.errors import HostError
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, ethernet
from vxagent.lab.namespaces import CommandFailed, Namespace
from vxagent.lab.pump import VNET_HDR
from vxagent.lab.tap import open_tap, take
from vxagent.lab.traffic import send_frames
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World
from vxagent.model.device import Device
from vxagent.netlink.base import Inspection, LinkChange
from vxagent.netlink.links import NetlinkLinks
from vxagent.netlink.offloads import Offloads, read_offloads, set_rxvlan

SOON_S = 10.0  # for an event on a busy machine; the one that must be quick is measured
PAIR = InternalPair(ifname="vxhost", peer="vxi-0123456789", mac="02:00:00:00:00:01", mtu=1400)

# r0 = -1 (TC_ACT_UNSPEC: go on); exit
GO_ON = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)


class Events:
    """What the watcher said, in order."""

    def __init__(self) -> None:
        self._said: queue.Queue[LinkChange | None] = queue.Queue()

    def __call__(self, change: LinkChange | None) -> None:
        self._said.put(change)

    def wait(self, wanted: Callable[[LinkChange | None], bool]) -> LinkChange | None:
        """The next event that is wanted; those before it are forgotten."""
        deadline = time.monotonic() + SOON_S
        while True:
            change = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            if wanted(change):
                return change

    def take(self) -> list[LinkChange | None]:
        """What was said since; it is forgotten."""
        return [self._said.get() for _ in range(self._said.qsize())]

    def device(self, ifname: str, wanted: Callable[[Device], bool] = lambda _: True) -> Device:
        """The device of the next event that shows it so."""

        def is_it(change: LinkChange | None) -> bool:
            device = change.device if change is not None else None
            return device is not None and device.ifname == ifname and wanted(device)

        change = self.wait(is_it)
        assert change is not None
        assert change.device is not None
        return change.device

    def gone(self, ifindex: int) -> None:
        """A device has gone."""
        self.wait(lambda c: c == LinkChange(ifindex=ifindex, device=None))


@pytest.fixture
def links(switch: Namespace) -> Iterator[NetlinkLinks]:
    with switch.entered():
        links = NetlinkLinks()
        try:
            yield links
        finally:
            links.close()


@pytest.fixture
def events(links: NetlinkLinks) -> Events:
    events = Events()
    links.watch(events)
    return events


@pytest.fixture
def program() -> Iterator[Program]:
    with Program.load(ProgSpec(name="go_on", type=ProgType.SCHED_CLS), GO_ON) as program:
        yield program


def get(links: NetlinkLinks, ifname: str) -> Device:
    return next(device for device in links.devices() if device.ifname == ifname)


# Reading


def test_devices_shows_what_the_kernel_has(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "mtu", "1400", "numtxqueues", "3", "type", "veth", "peer", "name", "v1")
    switch.ip("link", "set", "v0", "up", "promisc", "on", "arp", "off")
    switch.ip("link", "set", "v0", "address", "02:00:00:00:00:0a")
    switch.ip("address", "add", "192.0.2.1/24", "dev", "v0")
    switch.ip("address", "add", "2001:db8::1/64", "dev", "v0")
    device = get(links, "v0")
    assert device == Device(
        ifname="v0",
        ifindex=device.ifindex,
        kind="veth",
        up=True,
        carrier=False,
        mtu=1400,
        queues=3,
        arp=False,
        promisc=True,
        mac="02:00:00:00:00:0a",
        addresses=("192.0.2.1", "2001:db8::1"),
    )


def test_a_link_local_address_is_not_shown(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    switch.ip("address", "add", "fe80::1/64", "dev", "v0")
    assert get(links, "v0").addresses == ()


def test_a_vlan_device_shows_its_lower_device_and_vid(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    try:
        switch.ip("link", "add", "v0.10", "link", "v0", "type", "vlan", "id", "10")
    except CommandFailed as failed:
        pytest.skip(f"this kernel has no VLAN devices: {failed.output}")
    device = get(links, "v0.10")
    assert (device.kind, device.lower, device.vid) == ("vlan", get(links, "v0").ifindex, 10)


def test_an_enslaved_device_shows_its_master(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    switch.ip("link", "add", "br0", "type", "bridge")
    switch.ip("link", "set", "v0", "master", "br0")
    assert get(links, "v0").master == "br0"
    assert get(links, "v1").master == ""


def test_a_veth_shows_where_its_peer_is(world: World, switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    assert not get(links, "v0").peer_elsewhere
    switch.ip("link", "set", "v1", "netns", world.namespace("vm").name)
    assert get(links, "v0").peer_elsewhere


def test_disabled_ipv6_shows(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0.5", "type", "veth", "peer", "name", "v1")
    assert get(links, "v0.5").ipv6
    switch.sysctl("net/ipv6/conf/v0.5/disable_ipv6", 1)
    assert not get(links, "v0.5").ipv6


def test_frames_that_a_tap_lost_are_counted(switch: Namespace, links: NetlinkLinks) -> None:
    with open(open_tap(switch, "tap0"), "rb"):
        switch.ip("link", "set", "tap0", "up")
        switch.ip("link", "set", "lo", "up")
        device = get(links, "tap0")
        assert device.kind == "tun"
        assert links.egress_drops(device.ifindex) == {device.ifindex: 0}
        assert links.egress_drops()[device.ifindex] == 0
    assert links.egress_drops(device.ifindex) == {}


# Setting


def flags(device: Device) -> dict[str, bool]:
    return {"up": device.up, "arp": device.arp, "ipv6": device.ipv6, "promisc": device.promisc}


@pytest.mark.parametrize("ifname", ["v0", "v0.10", "all-of-it", "é-v"])
def test_set_device_sets_what_is_asked_for_and_puts_it_back(
    switch: Namespace, links: NetlinkLinks, ifname: str
) -> None:
    switch.ip("link", "add", ifname, "type", "veth", "peer", "name", "v1")
    ifindex = get(links, ifname).ifindex
    wanted = SetDevice(ifindex=ifindex, ifname=ifname, up=True, arp=False, ipv6=False, promisc=True)
    links.set_device(wanted)
    assert flags(get(links, ifname)) == {"up": True, "arp": False, "ipv6": False, "promisc": True}
    links.set_device(replace(wanted, up=None, arp=True, ipv6=None, promisc=False))
    assert flags(get(links, ifname)) == {"up": True, "arp": True, "ipv6": False, "promisc": False}
    links.set_device(replace(wanted, up=False, arp=None, ipv6=True, promisc=None))
    assert flags(get(links, ifname)) == {"up": False, "arp": True, "ipv6": True, "promisc": False}


def test_a_device_that_comes_up_without_arp_and_ipv6_never_had_them(
    switch: Namespace, links: NetlinkLinks, events: Events
) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ifindex = events.device("v0").ifindex
    links.set_device(SetDevice(ifindex=ifindex, ifname="v0", up=True, arp=False, ipv6=False))
    assert not events.device("v0", lambda device: device.up).arp
    assert "inet6" not in switch.ip("address", "show", "v0")


def test_a_device_that_is_gone_or_renamed_is_left_alone(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ifindex = get(links, "v0").ifindex
    switch.ip("link", "set", "v0", "name", "v2")
    links.set_device(SetDevice(ifindex=ifindex, ifname="v0", up=True, arp=False, ipv6=False))
    assert flags(get(links, "v2")) == {"up": False, "arp": True, "ipv6": True, "promisc": False}
    switch.ip("link", "delete", "v2")
    links.set_device(SetDevice(ifindex=ifindex, ifname="v2", up=True))


# Queues


def test_a_taps_queue_is_read_told_and_set_and_keeps_what_it_has(
    switch: Namespace, links: NetlinkLinks, events: Events
) -> None:
    tap = open_tap(switch, "t0")
    try:
        switch.ip("link", "set", "t0", "txqueuelen", "500", "up")
        device = events.device("t0", lambda device: device.txqueuelen == 500 and device.carrier)
        sent = [ethernet(BROADCAST, device.mac, EXPERIMENTAL, bytes([number]) * 50) for number in range(3)]
        send_frames(switch, "t0", *sent)
        effect = SetQueue(ifindex=device.ifindex, ifname="t0", frames=16_384, old=500)
        links.set_queue(effect)
        events.device("t0", lambda device: device.txqueuelen == 16_384)
        assert get(links, "t0").txqueuelen == 16_384
        links.set_queue(replace(effect, frames=500, old=16_384))
        assert get(links, "t0").txqueuelen == 500
        assert [frame for frame in (one[VNET_HDR.size :] for one in take(tap)) if frame in sent] == sent
    finally:
        os.close(tap)


def test_the_queue_of_a_device_that_is_gone_or_renamed_is_left_alone(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ifindex = get(links, "v0").ifindex
    links.set_queue(SetQueue(ifindex=ifindex, ifname="v2", frames=5000, old=1000))
    assert get(links, "v0").txqueuelen == 1000
    switch.ip("link", "delete", "v0")
    links.set_queue(SetQueue(ifindex=ifindex, ifname="v0", frames=5000, old=1000))


# Offloads


@pytest.mark.parametrize("ifname", ["v0", "all-of-15-bytes", "é-v"])
def test_whether_vlan_tags_are_taken_out_of_frames_is_read_and_set(
    switch: Namespace, links: NetlinkLinks, ifname: str
) -> None:
    switch.ip("link", "add", ifname, "type", "veth", "peer", "name", "v1")
    with switch.entered():
        there = read_offloads(ifname)
        if there.rxvlan_fixed:
            pytest.skip("the veth of this kernel has no rx-vlan-offload that can be set")
        assert (there.lro, there.rxvlan) == (False, True)
        effect = SetDevice(ifindex=get(links, ifname).ifindex, ifname=ifname, rxvlan=False)
        for on in (False, True):
            for _ in range(2):
                set_rxvlan(ifname, on)
                assert read_offloads(ifname) == replace(there, rxvlan=on)
        links.set_device(effect)
        assert not read_offloads(ifname).rxvlan
        assert read_offloads("v1") == there
        links.set_device(replace(effect, rxvlan=True))
        assert read_offloads(ifname) == there


def test_offloads_of_a_device_that_is_gone_or_has_none(switch: Namespace) -> None:
    with switch.entered():
        assert read_offloads("v9") == Offloads()
        assert read_offloads("lo") == Offloads(rxvlan_fixed=True)
        for ifname, said in (("v9", "No such device"), ("lo", "not supported")):
            with pytest.raises(OSError, match=said):
                set_rxvlan(ifname, True)


def test_a_veth_shows_no_offloads_because_xdp_has_nothing_to_do_there(
    switch: Namespace, links: NetlinkLinks, events: Events
) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for device in (events.device("v0"), get(links, "v0")):
        assert (device.rxvlan, device.rxvlan_fixed, device.lro) == (False, False, False)


# Internal ports


def test_an_internal_pair_is_made_once_and_removed_once(switch: Namespace, links: NetlinkLinks) -> None:
    for _ in range(2):
        links.make_internal(MakeInternal(pair=PAIR))
        host, peer = get(links, PAIR.ifname), get(links, PAIR.peer)
        assert (host.up, host.mtu, host.arp, host.ipv6) == (True, 1400, True, True)
        assert (peer.up, peer.mtu, peer.arp, peer.ipv6) == (True, 1400, False, False)
        assert PAIR.mac in switch.ip("link", "show", PAIR.ifname)
        assert f"{PAIR.ifname}@{PAIR.peer}" in switch.ip("link", "show", PAIR.ifname)
    for _ in range(2):
        links.remove_internal(RemoveInternal(pair=PAIR))
        assert {PAIR.ifname, PAIR.peer}.isdisjoint(switch.devices())


def test_an_internal_pair_follows_its_mac_and_mtu(switch: Namespace, links: NetlinkLinks) -> None:
    links.make_internal(MakeInternal(pair=PAIR))
    links.make_internal(MakeInternal(pair=replace(PAIR, mac="02:00:00:00:00:02", mtu=9000)))
    assert get(links, PAIR.ifname).mtu == get(links, PAIR.peer).mtu == 9000
    assert "02:00:00:00:00:02" in switch.ip("link", "show", PAIR.ifname)


def test_an_internal_pair_whose_name_is_taken_is_refused(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip("link", "add", PAIR.ifname, "type", "veth", "peer", "name", "v1")
    with pytest.raises(HostError, match=f"a device {PAIR.ifname} is there already; choose another name"):
        links.make_internal(MakeInternal(pair=PAIR))


def test_what_the_kernel_refuses_is_said_in_one_line_and_leaves_nothing(switch: Namespace, links: NetlinkLinks) -> None:
    with pytest.raises(HostError, match=r"^cannot make internal port vxhost: mtu greater than device maximum$"):
        links.make_internal(MakeInternal(pair=replace(PAIR, mtu=70_000)))
    assert PAIR.ifname not in switch.devices()


# clsact


def shown(switch: Namespace, ifname: str) -> str:
    return switch.run("tc", "filter", "show", "dev", ifname, "ingress").stdout


def add_foreign_filter(switch: Namespace, *, priority: int) -> None:
    """A classic BPF program that matches nothing (`ret 0`)."""
    place = ("dev", "v0", "ingress", "pref", str(priority))
    switch.run("tc", "filter", "add", *place, "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1")


@pytest.fixture
def veth(switch: Namespace, links: NetlinkLinks) -> int:
    """The ifindex of v0."""
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    return get(links, "v0").ifindex


def test_clsact_attaches_replaces_and_takes_off_with_the_qdisc(
    switch: Namespace, links: NetlinkLinks, veth: int, program: Program
) -> None:
    assert not links.clsact_attached(veth)
    for _ in range(2):
        links.attach_clsact(veth, program.fd)
        assert links.clsact_attached(veth)
        assert shown(switch, "v0").count("vxagent direct-action") == 1
    for _ in range(2):
        links.detach_clsact(veth)
        assert not links.clsact_attached(veth)
    assert "clsact" not in switch.run("tc", "qdisc", "show", "dev", "v0").stdout


@pytest.mark.parametrize("qdisc", ["clsact", "ingress"])
def test_a_qdisc_that_somebody_uses_stays_with_its_filters(
    switch: Namespace, links: NetlinkLinks, veth: int, program: Program, qdisc: str
) -> None:
    switch.run("tc", "qdisc", "add", "dev", "v0", qdisc)
    add_foreign_filter(switch, priority=7)
    links.attach_clsact(veth, program.fd)
    assert links.clsact_attached(veth)
    assert links.inspect(veth).filters == ("bpf",)
    links.detach_clsact(veth)
    assert not links.clsact_attached(veth)
    assert "pref 7 bpf" in shown(switch, "v0")


def test_a_filter_in_our_place_is_not_replaced(
    switch: Namespace, links: NetlinkLinks, veth: int, program: Program
) -> None:
    switch.run("tc", "qdisc", "add", "dev", "v0", "clsact")
    add_foreign_filter(switch, priority=1)
    with pytest.raises(HostError, match="tc filter del dev v0 ingress pref 1"):
        links.attach_clsact(veth, program.fd)
    links.detach_clsact(veth)
    assert "pref 1 bpf" in shown(switch, "v0")


def test_clsact_of_a_device_that_is_gone(switch: Namespace, links: NetlinkLinks, veth: int, program: Program) -> None:
    links.attach_clsact(veth, program.fd)
    switch.ip("link", "delete", "v0")
    assert not links.clsact_attached(veth)
    links.detach_clsact(veth)
    assert links.inspect(veth) == Inspection()
    with pytest.raises(HostError, match="No such device"):
        links.attach_clsact(veth, program.fd)


def test_a_device_without_anything_strange_is_inspected(links: NetlinkLinks, veth: int) -> None:
    assert links.inspect(veth) == Inspection(lro=False, xdp_program=0, filters=())


# Events


def test_the_life_of_a_device_is_told(world: World, switch: Namespace, events: Events) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    made = events.device("v0")
    switch.ip("link", "set", "v0", "up")
    assert events.device("v0", lambda device: device.up).ifindex == made.ifindex
    switch.ip("link", "set", "v0", "down")
    switch.ip("link", "set", "v0", "name", "v2")
    assert events.device("v2").ifindex == made.ifindex
    switch.ip("link", "set", "v2", "netns", world.namespace("vm").name)
    events.gone(made.ifindex)
    switch.ip("link", "add", "v3", "type", "veth", "peer", "name", "v4")
    there = events.device("v3")
    switch.ip("link", "delete", "v3")
    events.gone(there.ifindex)


def test_leaving_a_bridge_is_not_going(switch: Namespace, events: Events) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ifindex = events.device("v0").ifindex
    switch.ip("link", "add", "br0", "type", "bridge")
    switch.ip("link", "set", "v0", "master", "br0")
    events.device("v0", lambda device: device.master == "br0")
    switch.ip("link", "set", "v0", "nomaster")
    change = events.wait(lambda c: c is not None and c.ifindex == ifindex and (c.device is None or not c.device.master))
    assert change is not None
    assert change.device is not None


def test_addresses_that_come_and_go_are_told(switch: Namespace, events: Events) -> None:
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    switch.ip("address", "add", "192.0.2.1/24", "dev", "v0")
    assert events.device("v0", lambda device: bool(device.addresses)).addresses == ("192.0.2.1",)
    switch.ip("address", "delete", "192.0.2.1/24", "dev", "v0")
    events.device("v0", lambda device: not device.addresses)


@pytest.mark.alone  # it measures
def test_an_event_arrives_about_as_soon_as_a_process_can_ask(switch: Namespace, links: NetlinkLinks) -> None:
    """Nothing waits for its turn to look. Medians of twenty: one alone may meet a busy machine."""
    arrived: queue.Queue[tuple[float, LinkChange | None]] = queue.Queue()
    links.watch(lambda change: arrived.put((time.monotonic(), change)))
    switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ifindex = get(links, "v0").ifindex
    took, asked = [], []
    for up in (True, False) * 10:
        began = time.monotonic()
        switch.ip("link", "show", "dev", "v0")
        asked.append(time.monotonic() - began)
        began = time.monotonic()
        links.set_device(SetDevice(ifindex=ifindex, ifname="v0", up=up))
        while True:
            at, change = arrived.get(timeout=SOON_S)
            if (
                change is not None
                and change.device is not None
                and change.device.ifname == "v0"
                and change.device.up == up
            ):
                break
        took.append(at - began)
    assert statistics.median(took) < 5 * statistics.median(asked)


def test_lost_events_are_told_and_later_ones_too(
    monkeypatch: pytest.MonkeyPatch, switch: Namespace, links: NetlinkLinks
) -> None:
    monkeypatch.setattr("vxagent.netlink.watch._BUFFER_BYTES", 4096)
    events, go_on = Events(), threading.Event()

    def notify(change: LinkChange | None) -> None:
        go_on.wait()  # the reader does not read meanwhile
        events(change)

    links.watch(notify)
    switch.ip_batch(f"link add d{n} type veth peer name e{n}" for n in range(50))
    go_on.set()
    events.wait(lambda change: change is None)

    def is_told() -> bool:
        """Of every change, once the reader has caught up: until then the small buffer may lose some more."""
        for state in ("up", "down"):
            switch.ip("link", "set", "d49", state)
        return any(change and change.device and change.device.up for change in events.take())

    wait_until(is_told)


def test_nothing_is_told_after_close(switch: Namespace) -> None:
    told: list[LinkChange | None] = []
    with switch.entered():
        links = NetlinkLinks()
        links.watch(told.append)
        links.close()
        switch.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    assert threading.active_count() == 1
    assert told == []

"""rtnetlink messages, byte by byte: what the kernel says of devices, without a kernel."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from vxagent.model.device import Device
from vxagent.netlink import table
from vxagent.netlink.base import LinkChange
from vxagent.netlink.table import DeviceTable
from vxagent.netlink.wire import Message, attribute, attributes, messages, read_number, read_text, text, u32

NEW, DEL = table.RTM_NEWLINK, table.RTM_DELLINK
AF_BRIDGE = 7
VETH = Device(ifname="v0", ifindex=5, kind="veth", up=False, carrier=False, mtu=1400, ipv6=False)


def link(
    kind: int = NEW,
    *extra: bytes,
    name: str = "v0",
    ifindex: int = 5,
    flags: int = 0,
    family: int = 0,
    info: str = "veth",
) -> Message:
    """A message about a device."""
    body = table.LINK_INFO.pack(family, 1, ifindex, flags, 0)
    body += attribute(table.IFLA_IFNAME, text(name)) + attribute(table.IFLA_MTU, u32(1400))
    body += attribute(table.IFLA_LINKINFO, attribute(table.IFLA_INFO_KIND, text(info))) if info else b""
    return Message(kind, memoryview(body + b"".join(extra)))


def address(kind: int, value: str, ifindex: int = 5) -> Message:
    """A message about an address."""
    family = socket.AF_INET6 if ":" in value else socket.AF_INET
    body = table.ADDRESS_INFO.pack(family, 24, 0, 0, ifindex)
    return Message(kind, memoryview(body + attribute(1, socket.inet_pton(family, value))))


def inet6(disabled: int) -> bytes:
    """The IPv6 part of a link message: IFLA_AF_SPEC → AF_INET6 → IFLA_INET6_CONF, an array of 32-bit numbers."""
    conf = struct.pack("=40i", *(disabled if n == 26 else 7 for n in range(40)))
    return attribute(table.IFLA_AF_SPEC, attribute(socket.AF_INET6, attribute(2, conf)))


# The wire


def test_attributes_are_padded_and_found_again() -> None:
    raw = attribute(1, text("abcd")) + attribute(2 | 0x8000, attribute(3, u32(7)))
    assert len(raw) % 4 == 0
    found = attributes(memoryview(raw))
    assert read_text(found[1]) == "abcd"
    assert read_number(attributes(found[2])[3]) == 7


@pytest.mark.parametrize("cut", range(1, 24))
def test_what_is_cut_short_ends_quietly(cut: int) -> None:
    raw = (attribute(1, text("abcd")) + attribute(2, u32(7)))[:-cut]
    assert set(attributes(memoryview(raw))) <= {1, 2}
    header = struct.pack("=IHHII", 16, 3, 0, 1, 0)
    assert len(list(messages(memoryview((header + header)[:-cut])))) < 2


def test_an_attribute_shorter_than_its_header_ends_the_list() -> None:
    assert attributes(memoryview(struct.pack("=HH", 0, 1) * 3)) == {}


# Devices


def test_a_device_is_read() -> None:
    flags = table.IFF_UP | table.IFF_LOWER_UP | table.IFF_NOARP | table.IFF_PROMISC
    message = link(NEW, attribute(table.IFLA_NUM_TX_QUEUES, u32(4)), inet6(0), flags=flags)
    device = replace(VETH, up=True, carrier=True, arp=False, promisc=True, queues=4, ipv6=True)
    assert DeviceTable([message]).devices() == [device]


def test_a_device_has_its_mac() -> None:
    message = link(NEW, attribute(table.IFLA_ADDRESS, bytes.fromhex("0200000000aa")))
    assert DeviceTable([message]).devices() == [replace(VETH, mac="02:00:00:00:00:aa")]


def test_hardware_has_no_kind() -> None:
    assert DeviceTable([link(info="")]).devices() == [replace(VETH, kind="")]


@pytest.mark.parametrize(("extra", "on"), [(inet6(0), True), (inet6(1), False), (b"", False)])
def test_ipv6_is_on_where_it_is_not_disabled(extra: bytes, on: bool) -> None:
    assert DeviceTable([link(NEW, extra)]).devices() == [replace(VETH, ipv6=on)]


def test_a_vlan_device_has_a_lower_one_and_a_vid() -> None:
    kind = attribute(table.IFLA_INFO_KIND, text("vlan"))
    data = attribute(table.IFLA_INFO_DATA, attribute(1, struct.pack("=H", 10)))
    info = attribute(table.IFLA_LINKINFO, kind, data)
    message = link(NEW, info, attribute(table.IFLA_LINK, u32(9)), info="")
    assert DeviceTable([message]).devices() == [replace(VETH, kind="vlan", lower=9, vid=10)]


def test_the_peer_of_a_veth_is_no_lower_device_and_elsewhere_when_the_kernel_says_so() -> None:
    peer = attribute(table.IFLA_LINK, u32(9))
    assert DeviceTable([link(NEW, peer)]).devices() == [VETH]
    elsewhere = attribute(table.IFLA_LINK_NETNSID, struct.pack("=i", -1))
    assert DeviceTable([link(NEW, peer, elsewhere)]).devices() == [replace(VETH, peer_elsewhere=True)]


def test_a_master_is_named_also_one_that_is_not_known_yet() -> None:
    known = DeviceTable([link(NEW, attribute(table.IFLA_MASTER, u32(9)))])
    assert known.devices() == [replace(VETH, master="ifindex 9")]
    known.feed(link(name="br0", ifindex=9, info="bridge"))
    assert known.get(5) == replace(VETH, master="br0")


# Changes


def test_only_what_changes_is_told() -> None:
    known = DeviceTable()
    assert known.feed(link()) == LinkChange(ifindex=5, device=VETH)
    assert known.feed(link()) is None
    assert known.feed(link(flags=table.IFF_UP)) == LinkChange(ifindex=5, device=replace(VETH, up=True))
    assert known.feed(link(name="v1")) == LinkChange(ifindex=5, device=replace(VETH, ifname="v1"))
    assert known.feed(link(DEL)) == LinkChange(ifindex=5, device=None)
    assert known.feed(link(DEL)) is None


def test_a_bridge_that_lets_go_of_a_port_deletes_no_device() -> None:
    known = DeviceTable([link()])
    assert known.feed(link(DEL, family=AF_BRIDGE)) is None
    assert known.feed(link(NEW, family=AF_BRIDGE, name="other")) is None
    assert known.devices() == [VETH]


def test_addresses_are_the_hosts_own_without_link_local_ones() -> None:
    known = DeviceTable([link()])
    for value in ("192.0.2.1", "2001:db8::1"):
        change = known.feed(address(table.RTM_NEWADDR, value))
        assert change is not None
    for value in ("192.0.2.1", "fe80::1"):
        assert known.feed(address(table.RTM_NEWADDR, value)) is None
    assert known.devices() == [replace(VETH, addresses=("192.0.2.1", "2001:db8::1"))]
    assert known.feed(address(table.RTM_DELADDR, "192.0.2.1")) == LinkChange(
        ifindex=5, device=replace(VETH, addresses=("2001:db8::1",))
    )
    assert known.feed(address(table.RTM_DELADDR, "192.0.2.1")) is None


def test_addresses_stay_when_the_device_changes_and_go_with_it() -> None:
    known = DeviceTable([link(), address(table.RTM_NEWADDR, "192.0.2.1")])
    known.feed(link(flags=table.IFF_UP))
    assert known.get(5) == replace(VETH, up=True, addresses=("192.0.2.1",))
    known.feed(link(DEL))
    known.feed(link())
    assert known.get(5) == VETH


# What rtnetlink does not tell


class Seen:
    """What looking at a device adds to it.

    Attributes:
        vhost: names of taps of vhost-net.
        looked: names of devices, as they were looked at.
    """

    def __init__(self, *vhost: str) -> None:
        self.vhost = set(vhost)
        self.looked: list[str] = []

    def __call__(self, device: Device) -> Device:
        self.looked.append(device.ifname)
        return replace(device, vhost=device.ifname in self.vhost)


def test_what_looking_adds_is_shown_and_told() -> None:
    known = DeviceTable([link()], look=Seen("v0", "v1"))
    assert known.devices() == [replace(VETH, vhost=True)]
    assert known.feed(link(name="v1", ifindex=6)) == LinkChange(
        ifindex=6, device=replace(VETH, ifname="v1", ifindex=6, vhost=True)
    )
    assert known.feed(link(name="v1", ifindex=6)) is None


def test_looking_again_tells_what_has_changed_once() -> None:
    seen = Seen()
    known = DeviceTable([link(), link(name="v1", ifindex=6), address(table.RTM_NEWADDR, "192.0.2.1")], look=seen)
    assert known.look_again() == []
    seen.vhost = {"v0"}
    device = replace(VETH, vhost=True, addresses=("192.0.2.1",))
    assert known.look_again() == [LinkChange(ifindex=5, device=device)]
    assert known.get(5) == device
    assert known.look_again() == []
    seen.vhost = set()
    assert known.look_again() == [LinkChange(ifindex=5, device=replace(device, vhost=False))]


def test_a_message_looks_at_its_own_device_and_looking_again_at_all_that_are_there() -> None:
    seen = Seen()
    known = DeviceTable([link(), link(name="v1", ifindex=6)], look=seen)
    known.feed(address(table.RTM_NEWADDR, "192.0.2.1"))
    known.feed(link(flags=table.IFF_UP))
    known.feed(link(DEL))
    assert seen.looked == ["v0", "v1", "v0"]
    known.look_again()
    assert seen.looked[3:] == ["v1"]


def test_carrier_that_goes_and_comes_is_told() -> None:
    known = DeviceTable([link(flags=table.IFF_UP | table.IFF_LOWER_UP)])
    up = replace(VETH, up=True)
    assert known.feed(link(flags=table.IFF_UP)) == LinkChange(ifindex=5, device=up)
    assert known.feed(link(flags=table.IFF_UP | table.IFF_LOWER_UP)) == LinkChange(
        ifindex=5, device=replace(up, carrier=True)
    )

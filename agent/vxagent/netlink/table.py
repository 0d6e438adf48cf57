"""The devices of one namespace, as rtnetlink messages tell of them: messages in, changes out."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace

from vxagent.model.device import Device
from vxagent.netlink.base import LinkChange
from vxagent.netlink.wire import Attributes, Message, attributes, read_number, read_text

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR = 20, 21

LINK_INFO = struct.Struct("=BxHiII")  # ifinfomsg: family, ARPHRD, ifindex, flags, which flags to change
ADDRESS_INFO = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, ifindex

IFF_UP, IFF_NOARP, IFF_PROMISC, IFF_LOWER_UP = 0x1, 0x80, 0x100, 0x10000

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NUM_TX_QUEUES, IFLA_LINK_NETNSID, IFLA_XDP = 18, 26, 31, 37, 43
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_XDP_PROG_ID = 4
_IFLA_VLAN_ID = 1
_IFLA_INET6_CONF = 2
_DISABLE_IPV6 = 26  # DEVCONF_DISABLE_IPV6, index of a 32-bit number
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_AF_UNSPEC, _AF_INET, _AF_INET6 = 0, 2, 10


class DeviceTable:
    """What is known of the devices. Not thread-safe.

    Args:
        dumped: the first messages.
        look: adds to a device what rtnetlink does not tell.

    A bridge tells of its ports in messages of its own family, its DELLINK among them: those are not about
    the device and are passed over.
    """

    def __init__(self, dumped: Iterable[Message] = (), *, look: Callable[[Device], Device] = lambda d: d) -> None:
        self._look = look
        self._devices: dict[int, Device] = {}
        self._masters: dict[int, int] = {}  # ifindex → ifindex of its master
        self._addresses: dict[int, list[str]] = {}
        for message in dumped:
            self.feed(message)

    def devices(self) -> list[Device]:
        """All of them."""
        return [self._whole(ifindex) for ifindex in self._devices]

    def get(self, ifindex: int) -> Device | None:
        """One of them."""
        return self._whole(ifindex) if ifindex in self._devices else None

    def feed(self, message: Message) -> LinkChange | None:
        """Take in one message; return what changed by it, None when nothing that a Device shows."""
        if message.kind in (RTM_NEWLINK, RTM_DELLINK):
            return self._link(message)
        if message.kind in (RTM_NEWADDR, RTM_DELADDR):
            return self._address(message)
        return None

    def look_again(self) -> list[LinkChange]:
        """What has changed of that since the last message about each device."""
        changes = []
        for ifindex, device in self._devices.items():
            looked = self._look(device)
            if looked != device:
                self._devices[ifindex] = looked
                changes.append(LinkChange(ifindex=ifindex, device=self._whole(ifindex)))
        return changes

    def _link(self, message: Message) -> LinkChange | None:
        family, _, ifindex, flags, _ = LINK_INFO.unpack_from(message.body)
        if family != _AF_UNSPEC:
            return None
        if message.kind == RTM_DELLINK:
            return self._forget(ifindex)
        return self._learn(ifindex, flags, attributes(message.body[LINK_INFO.size :]))

    def _learn(self, ifindex: int, flags: int, found: Attributes) -> LinkChange | None:
        before = self.get(ifindex)
        self._devices[ifindex] = self._look(parse_device(ifindex, flags, found))
        self._masters[ifindex] = read_number(found.get(IFLA_MASTER))
        now = self._whole(ifindex)
        return LinkChange(ifindex=ifindex, device=now) if now != before else None

    def _forget(self, ifindex: int) -> LinkChange | None:
        self._addresses.pop(ifindex, None)
        self._masters.pop(ifindex, None)
        known = self._devices.pop(ifindex, None)
        return LinkChange(ifindex=ifindex, device=None) if known is not None else None

    def _address(self, message: Message) -> LinkChange | None:
        family, _, _, _, ifindex = ADDRESS_INFO.unpack_from(message.body)
        found = attributes(message.body[ADDRESS_INFO.size :])
        raw = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
        if raw is None or family not in (_AF_INET, _AF_INET6):
            return None
        address = ipaddress.ip_address(bytes(raw))
        if address.version == 6 and address.is_link_local:
            return None
        held = self._addresses.setdefault(ifindex, [])
        if (str(address) in held) == (message.kind == RTM_NEWADDR):
            return None
        (held.append if message.kind == RTM_NEWADDR else held.remove)(str(address))
        device = self.get(ifindex)
        return LinkChange(ifindex=ifindex, device=device) if device is not None else None

    def _whole(self, ifindex: int) -> Device:
        """The device with what other messages tell of it: its master's name and its addresses."""
        device = self._devices[ifindex]
        addresses = self._addresses.get(ifindex)
        number = self._masters.get(ifindex)
        if not addresses and not number:
            return device
        master = self._devices.get(number) if number else None
        # A master that is not known (yet) is a master all the same.
        name = master.ifname if master is not None else f"ifindex {number}" if number else ""
        return replace(device, master=name, addresses=tuple(addresses or ()))


def parse_device(ifindex: int, flags: int, found: Attributes) -> Device:
    """A device out of the attributes of its RTM_NEWLINK, without master and addresses."""
    info = attributes(found[IFLA_LINKINFO]) if IFLA_LINKINFO in found else {}
    kind = read_text(info.get(IFLA_INFO_KIND))
    is_vlan = kind == "vlan" and IFLA_INFO_DATA in info
    return Device(
        ifname=read_text(found.get(IFLA_IFNAME)),
        ifindex=ifindex,
        kind=kind,
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        mac=bytes(found[IFLA_ADDRESS]).hex(":") if IFLA_ADDRESS in found else "",
        mtu=read_number(found.get(IFLA_MTU)),
        lower=read_number(found.get(IFLA_LINK)) if is_vlan else 0,
        vid=read_number(attributes(info[IFLA_INFO_DATA]).get(_IFLA_VLAN_ID)) if is_vlan else 0,
        peer_elsewhere=kind == "veth" and IFLA_LINK_NETNSID in found,
        queues=read_number(found.get(IFLA_NUM_TX_QUEUES), 1),
        txqueuelen=read_number(found.get(IFLA_TXQLEN), 1000),
        arp=not flags & IFF_NOARP,
        ipv6=_has_ipv6(found),
        promisc=bool(flags & IFF_PROMISC),
    )


def _has_ipv6(found: Attributes) -> bool:
    """IPv6 runs on the device: it has an AF_INET6 part, and disable_ipv6 in it is 0."""
    if IFLA_AF_SPEC not in found:
        return False
    inet6 = attributes(found[IFLA_AF_SPEC]).get(_AF_INET6)
    conf = attributes(inet6).get(_IFLA_INET6_CONF) if inet6 is not None else None
    at = _DISABLE_IPV6 * 4
    return conf is not None and read_number(conf[at : at + 4]) == 0

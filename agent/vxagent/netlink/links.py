"""The devices of the switch's namespace, by rtnetlink, /proc/sys and ethtool's ioctl.

An instance belongs to the namespace in which it was made; all threads that use it are in that namespace.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vxagent import steps
from vxagent.core.effects import InternalPair, MakeInternal, RemoveInternal, SetDevice, SetQueue
from vxagent.errors import HostError, mend_lack
from vxagent.model.device import Device
from vxagent.netlink import clsact
from vxagent.netlink.base import Inspection
from vxagent.netlink.offloads import read_offloads, set_rxvlan
from vxagent.netlink.table import (
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_TXQLEN,
    IFLA_XDP,
    IFLA_XDP_PROG_ID,
    LINK_INFO,
    RTM_DELLINK,
    RTM_NEWLINK,
)
from vxagent.netlink.watch import Notify, Watcher, read_table
from vxagent.netlink.wire import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Attributes,
    Requests,
    attribute,
    attributes,
    read_number,
    read_text,
    text,
    u32,
)

_RTM_GETLINK, _RTM_SETLINK, _RTM_GETSTATS = 18, 19, 94
_VETH_INFO_PEER = 1
_STATS_INFO = struct.Struct("=BxxxII")  # if_stats_msg: family, ifindex, filter mask
_IFLA_STATS_LINK_64 = 1
_TX_ERRORS, _TX_DROPPED = 5 * 8, 7 * 8  # offsets in rtnl_link_stats64

_CONF = Path("/proc/sys/net/ipv6/conf")


class NetlinkLinks:
    """`netlink.base.Links` with the kernel. Raises HostError (all methods)."""

    def __init__(self) -> None:
        with _host_errors("cannot open a netlink socket"):
            self._requests = Requests()
        self._watcher: Watcher | None = None

    def devices(self) -> list[Device]:
        """Every device there is."""
        with _host_errors("cannot read the devices"):
            return read_table(self._requests).devices()

    def set_device(self, effect: SetDevice) -> None:
        """Set flags. Down comes first and up last: a device is never up with what it shall not have."""
        with _host_errors(f"cannot set device {effect.ifname}", unless_gone=True):
            if not self._is_named(effect.ifindex, effect.ifname):
                return
            if effect.up is False:
                self._set_flags(effect.ifindex, {IFF_UP: False})
            if effect.ipv6 is not None:
                _set_ipv6(effect.ifname, effect.ipv6)
            if effect.rxvlan is not None:
                _set_rxvlan(effect.ifname, effect.rxvlan)
            noarp = None if effect.arp is None else not effect.arp
            self._set_flags(effect.ifindex, {IFF_NOARP: noarp, IFF_PROMISC: effect.promisc, IFF_UP: effect.up or None})

    def set_queue(self, effect: SetQueue) -> None:
        """Have a device keep so many frames. What a tap has in its queue stays there, as far as it fits."""
        with _host_errors(f"cannot set the queue of device {effect.ifname}", unless_gone=True):
            if self._is_named(effect.ifindex, effect.ifname):
                length = attribute(IFLA_TXQLEN, u32(effect.frames))
                self._requests.request(_RTM_SETLINK, _link(ifindex=effect.ifindex) + length)

    def make_internal(self, effect: MakeInternal) -> None:
        """Make the veth pair, its switch side without ARP and IPv6; one that is there gets its MAC and MTU."""
        pair = effect.pair
        with _host_errors(f"cannot make internal port {pair.ifname}"):
            if self._find(_link(ifname=pair.peer)) is not None:
                self._configure_pair(pair)
                return
            self._make_pair(pair)
            try:
                self._configure_pair(pair)
            except BaseException:
                self.remove_internal(RemoveInternal(pair=pair))
                raise

    def remove_internal(self, effect: RemoveInternal) -> None:
        """Remove the pair by its switch side, whose name is ours alone."""
        with _host_errors(f"cannot remove internal port {effect.pair.ifname}", unless_gone=True):
            self._requests.request(RTM_DELLINK, _link(ifname=effect.pair.peer))

    def egress_drops(self, ifindex: int = 0) -> dict[int, int]:
        """ifindex → frames that the device took and lost, of one device or (0) of all."""
        found: dict[int, int] = {}
        with _host_errors("cannot read device statistics", unless_gone=True):
            wanted = _STATS_INFO.pack(0, ifindex, 1 << (_IFLA_STATS_LINK_64 - 1))
            ask = self._requests.request if ifindex else self._requests.dump
            found.update(_read_lost(message.body) for message in ask(_RTM_GETSTATS, wanted))
        return found

    def inspect(self, ifindex: int) -> Inspection:
        """What `doctor` wants to know of one device; nothing of one that is gone."""
        with _host_errors(f"cannot inspect device {ifindex}"):
            found = self._find(_link(ifindex=ifindex))
            if found is None:
                return Inspection()
            xdp = attributes(found[IFLA_XDP]) if IFLA_XDP in found else {}
            filters = clsact.foreign(self._requests, ifindex)
            return Inspection(
                lro=read_offloads(read_text(found.get(IFLA_IFNAME))).lro,
                xdp_program=read_number(xdp.get(IFLA_XDP_PROG_ID)),
                filters=tuple(f"{f.kind} {f.name}".strip() for f in filters),
            )

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        """Put the program at the device's clsact ingress (or egress)."""
        with _host_errors(f"cannot attach at clsact of device {ifindex}"):
            clsact.attach(self._requests, ifindex, program_fd, egress=egress)

    def detach_clsact(self, ifindex: int, *, egress: bool = False) -> None:
        """Take it off."""
        with _host_errors(f"cannot detach from clsact of device {ifindex}", unless_gone=True):
            clsact.detach(self._requests, ifindex, egress=egress)

    def clsact_attached(self, ifindex: int, *, egress: bool = False) -> bool:
        """Our program is there."""
        with _host_errors(f"cannot read clsact of device {ifindex}"):
            return clsact.is_attached(self._requests, ifindex, egress=egress)

    def watch(self, notify: Notify) -> None:
        """Call `notify` for every change, until `close`."""
        with _host_errors("cannot watch the devices"):
            self._watcher = Watcher(notify)

    def close(self) -> None:
        """End the thread and the sockets."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._requests.close()

    def _set_flags(self, ifindex: int, wanted: dict[int, bool | None]) -> None:
        """Set and clear device flags in one message; None leaves one alone. ARP changes before up."""
        mask = sum(flag for flag, value in wanted.items() if value is not None)
        if mask:
            flags = sum(flag for flag, value in wanted.items() if value)
            self._requests.request(_RTM_SETLINK, LINK_INFO.pack(0, 0, ifindex, flags, mask))

    def _make_pair(self, pair: InternalPair) -> None:
        peer = LINK_INFO.pack(0, 0, 0, IFF_NOARP, IFF_NOARP) + attribute(IFLA_IFNAME, text(pair.peer))
        info = (
            attribute(IFLA_INFO_KIND, text("veth")),
            attribute(IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer)),
        )
        body = _link(ifname=pair.ifname) + attribute(IFLA_LINKINFO, *info)
        try:
            self._requests.request(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)
        except FileExistsError as error:
            raise HostError(
                f"a device {pair.ifname} is there already", "choose another name for the internal port"
            ) from error

    def _configure_pair(self, pair: InternalPair) -> None:
        _set_ipv6(pair.peer, False)
        mtu = attribute(IFLA_MTU, u32(pair.mtu))
        mac = attribute(IFLA_ADDRESS, bytes.fromhex(pair.mac.replace(":", "")))
        for ifname, values in ((pair.peer, mtu), (pair.ifname, mtu + mac)):
            try:
                self._requests.request(_RTM_SETLINK, _link(ifname=ifname, flags=IFF_UP, mask=IFF_UP) + values)
            except OSError as error:
                if error.errno != errno.ENODEV:  # somebody moved it to another namespace, as he may
                    raise

    def _is_named(self, ifindex: int, ifname: str) -> bool:
        """Asked without a descriptor of its own, for lack of which `if_indextoname` would say that there is none."""
        found = self._find(_link(ifindex=ifindex))
        return found is not None and read_text(found.get(IFLA_IFNAME)) == ifname

    def _find(self, request: bytes) -> Attributes | None:
        """What the kernel says of one device, None when it is not there."""
        try:
            message = self._requests.request(_RTM_GETLINK, request)[0]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return attributes(message.body[LINK_INFO.size :])


def _link(*, ifindex: int = 0, ifname: str = "", flags: int = 0, mask: int = 0) -> bytes:
    """An ifinfomsg that names a device by number or by name."""
    name = attribute(IFLA_IFNAME, text(ifname)) if ifname else b""
    return LINK_INFO.pack(0, 0, ifindex, flags, mask) + name


def _set_ipv6(ifname: str, on: bool) -> None:
    """Switch IPv6 of a device on or off; a device that has none, or is gone meanwhile, has nothing to switch."""
    with suppress(FileNotFoundError), open(_CONF / ifname / "disable_ipv6", "wb", buffering=0) as switch:
        switch.write(b"0" if on else b"1")
        steps.taken()


def _set_rxvlan(ifname: str, on: bool) -> None:
    try:
        set_rxvlan(ifname, on)
        steps.taken()
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise
        what = f"the driver of {ifname} does not {'take VLAN tags out of' if on else 'leave VLAN tags in'} frames"
        raise HostError(f"{what}: {error.strerror}", "run its tc program alone, with --hook tc") from error


def _read_lost(body: memoryview) -> tuple[int, int]:
    _, ifindex, _ = _STATS_INFO.unpack_from(body)
    stats = attributes(body[_STATS_INFO.size :]).get(_IFLA_STATS_LINK_64)
    if stats is None:
        return ifindex, 0
    return ifindex, sum(read_number(stats[at : at + 8]) for at in (_TX_ERRORS, _TX_DROPPED))


@contextmanager
def _host_errors(what: str, *, unless_gone: bool = False) -> Iterator[None]:
    """Turn OSError into HostError; with `unless_gone` a device that is not there is none."""
    try:
        yield
    except OSError as error:
        if unless_gone and error.errno in (errno.ENODEV, errno.ENXIO):
            return
        denied = error.errno in (errno.EPERM, errno.EACCES)
        mend = "it needs root or CAP_NET_ADMIN" if denied else mend_lack(error.errno)
        raise HostError(f"{what}: {error.strerror or error}", mend) from error

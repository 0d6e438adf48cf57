"""Programs at clsact, where the kernel has no tcx (before 6.6). It replaces under traffic without a lost frame.

Layout: tcmsg and TCA_… of <linux/rtnetlink.h>, TCA_BPF_… of <linux/pkt_cls.h>.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from vxagent.errors import HostError
from vxagent.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, Requests, attribute, attributes, read_text, text, u32

OURS = "vxagent"  # how our program is recognised

_RTM_NEWQDISC, _RTM_DELQDISC = 36, 37
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_TCM = struct.Struct("=BxxxiIII")  # tcmsg: family, ifindex, handle, parent, priority << 16 | protocol
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_CLSACT_PARENT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_PRIORITY, _HANDLE = 1, 1
_INFO = _PRIORITY << 16 | socket.htons(3)  # ETH_P_ALL, in network byte order


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One filter at clsact: its kind ("bpf", "flower" …), the name of a bpf one, its priority."""

    kind: str
    name: str
    priority: int

    @property
    def is_ours(self) -> bool:
        """We put it there."""
        return (self.kind, self.name, self.priority) == ("bpf", OURS, _PRIORITY)


def attach(requests: Requests, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
    """Run the program at the device's ingress (or egress), in place of ours if it is there.

    Raises:
        HostError: somebody else's filter has our priority.
        OSError: the kernel refuses.
    """
    side = "egress" if egress else "ingress"
    for found in _filters(requests, ifindex, _parent(egress)):
        if found.priority == _PRIORITY and not found.is_ours:
            ifname = socket.if_indextoname(ifindex)
            raise HostError(
                f"the {side} of device {ifname} has a {found.kind} filter of priority {_PRIORITY} already",
                f"remove it with `tc filter del dev {ifname} {side} pref {_PRIORITY}`",
            )
    qdisc = _TCM.pack(0, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0) + attribute(_TCA_KIND, text("clsact"))
    with suppress(FileExistsError):  # ours, or somebody's clsact or ingress qdisc, which serves as well
        requests.request(_RTM_NEWQDISC, qdisc, NLM_F_CREATE | NLM_F_EXCL)
    options = (
        attribute(_TCA_BPF_FD, u32(program_fd)),
        attribute(_TCA_BPF_NAME, text(OURS)),
        attribute(_TCA_BPF_FLAGS, u32(_DIRECT_ACTION)),
    )
    requests.request(_RTM_NEWTFILTER, _ours(ifindex, egress) + attribute(_TCA_OPTIONS, *options), NLM_F_CREATE)


def detach(requests: Requests, ifindex: int, *, egress: bool = False) -> None:
    """Take our program off, and the qdisc when nothing is left in it. Absent or a device that is gone: nothing to do.

    Raises:
        OSError: the kernel refuses.
    """
    if not is_attached(requests, ifindex, egress=egress):
        return
    try:
        requests.request(_RTM_DELTFILTER, _ours(ifindex, egress))
        if not _filters(requests, ifindex, _INGRESS) and not _filters(requests, ifindex, _EGRESS):
            requests.request(_RTM_DELQDISC, _TCM.pack(0, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise


def is_attached(requests: Requests, ifindex: int, *, egress: bool = False) -> bool:
    """Our program is there. Raises OSError."""
    return any(found.is_ours for found in _filters(requests, ifindex, _parent(egress)))


def foreign(requests: Requests, ifindex: int) -> list[Filter]:
    """The filters at the device's ingress and egress that are not ours. Raises OSError."""
    # An ingress qdisc shows the same filters for both.
    everything = dict.fromkeys(_filters(requests, ifindex, _INGRESS) + _filters(requests, ifindex, _EGRESS))
    return [found for found in everything if not found.is_ours]


def _parent(egress: bool) -> int:
    return _EGRESS if egress else _INGRESS


def _ours(ifindex: int, egress: bool) -> bytes:
    return _TCM.pack(0, ifindex, _HANDLE, _parent(egress), _INFO) + attribute(_TCA_KIND, text("bpf"))


def _filters(requests: Requests, ifindex: int, parent: int) -> list[Filter]:
    try:
        dumped = requests.dump(_RTM_GETTFILTER, _TCM.pack(0, ifindex, 0, parent, 0))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return []  # no such device, or no qdisc
        raise
    return [found for message in dumped if (found := _read_filter(message.body)) is not None]


def _read_filter(body: memoryview) -> Filter | None:
    """The filter in an RTM_NEWTFILTER; None for the chain entry without options that precedes each."""
    info = _TCM.unpack_from(body)[4]
    found = attributes(body[_TCM.size :])
    if _TCA_OPTIONS not in found:
        return None
    name = attributes(found[_TCA_OPTIONS]).get(_TCA_BPF_NAME)
    kind = read_text(found.get(_TCA_KIND))
    return Filter(kind=kind, name=read_text(name) if kind == "bpf" else "", priority=info >> 16)

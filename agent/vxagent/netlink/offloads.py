"""Offloads of a NIC that change what a program sees of its frames, by ethtool's ioctl (<linux/ethtool.h>)."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from vxagent.errors import mend_lack

_SIOCETHTOOL = 0x8946
_GFLAGS, _SFLAGS, _GFEATURES = 0x25, 0x26, 0x3A
_RXVLAN, _LRO = 1 << 8, 1 << 15  # ETH_FLAG_… and, in the first word of the features, NETIF_F_…_BIT
_IFREQ_BYTES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """lro, rxvlan, rxvlan_fixed: as in `model.device.Device`."""

    lro: bool = False
    rxvlan: bool = False
    rxvlan_fixed: bool = False


def read_offloads(ifname: str) -> Offloads:
    """What is on; nothing of a device without ethtool, or that is gone.

    Raises:
        OSError: this process may open no more files.
    """
    try:
        _, _, available, _, active, _ = _ask(ifname, (_GFEATURES, 1, 0, 0, 0, 0))
    except OSError as error:
        if mend_lack(error.errno):
            raise
        return Offloads()
    return Offloads(lro=bool(active & _LRO), rxvlan=bool(active & _RXVLAN), rxvlan_fixed=not available & _RXVLAN)


def set_rxvlan(ifname: str, on: bool) -> None:
    """Have the NIC take VLAN tags out of frames that it receives, or leave them in.

    Raises:
        OSError: the driver does not do it.
    """
    _, flags = _ask(ifname, (_GFLAGS, 0))
    _ask(ifname, (_SFLAGS, flags | _RXVLAN if on else flags & ~_RXVLAN))
    if read_offloads(ifname).rxvlan != on:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _ask(ifname: str, words: tuple[int, ...]) -> array.array[int]:
    value = array.array("I", words)
    request = struct.pack("16sP", ifname.encode(), value.buffer_info()[0]).ljust(_IFREQ_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return value

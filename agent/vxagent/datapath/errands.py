"""What the agent has programs do for it, by running them once: what they count, and what only the kernel may send."""

from __future__ import annotations

import struct

from vxagent.core.effects import AddCounts, Announce
from vxagent.datapath import abi
from vxagent.datapath.bpf_prog import Program
from vxagent.datapath.codec import U32

_MARK_AT, _SKB_BYTES = 8, 192  # <linux/bpf.h>: struct __sk_buff
_BROADCAST = b"\xff" * 6
_ETH_P_8021Q, _ETH_P_IP, _ETH_P_RARP = 0x8100, 0x0800, 0x8035
_ETHERNET = 1  # RFC 826: hardware type
_REQUEST_REVERSE = 3  # RFC 903: who has my own hardware address?
_PADDED = 46  # bytes of payload of the shortest frame


def add_counts(carry: Program, effect: AddCounts) -> None:
    """Add what a port has counted elsewhere, by vx_carry. Raises BpfError."""
    carry.test_run(abi.CARRIED.struct.pack(effect.counter, 0, *effect.traffic, *effect.drop, *effect.dropped))


def announce(say: Program, effect: Announce) -> None:
    """Tell a network where a MAC is, by vx_say: RARP, as hypervisors send it, from which switches learn.

    A socket would need CAP_NET_RAW. A device that is gone hears nothing. Raises BpfError.
    """
    context = bytes(_MARK_AT) + U32.pack(effect.ifindex)
    say.test_run(rarp(effect), context.ljust(_SKB_BYTES, b"\0"))


def rarp(effect: Announce) -> bytes:
    """The frame, with its tag (RFC 903)."""
    mac = bytes.fromhex(effect.mac.replace(":", ""))
    tag = struct.pack("!HH", _ETH_P_8021Q, effect.vid) if effect.vid else b""
    body = struct.pack("!HHBBH", _ETHERNET, _ETH_P_IP, 6, 4, _REQUEST_REVERSE) + (mac + bytes(4)) * 2
    return _BROADCAST + mac + tag + struct.pack("!H", _ETH_P_RARP) + body.ljust(_PADDED, b"\0")

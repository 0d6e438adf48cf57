"""A VM whose NIC does VLAN offload: the outermost tag travels beside the frame (skb->vlan_tci), not in it.

VLAN devices do that on a veth; kernels without them have a program at the NIC's egress do the same.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vxagent.datapath import bpf
from vxagent.datapath.bpf import Command
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.lab.namespaces import Namespace

_TCX_EGRESS = 47  # <linux/bpf.h>
_LINK_CREATE = struct.Struct("=4I")  # prog_fd, target_ifindex, attach_type, flags
_MACS, _TAG = 12, 4
_MARK = 8  # offset in struct __sk_buff

# struct bpf_insn: opcode, registers (source << 4 | destination), offset, immediate
_INSN = struct.Struct("=BBhi")
_LOAD32, _MOV64, _MOV64_IMM, _RSH64_IMM, _TO_BE, _IF_0, _CALL, _EXIT = 0x61, 0xBF, 0xB7, 0x77, 0xDC, 0x15, 0x85, 0x95
_R0, _R1, _R2, _R3 = 0, 1, 2, 3
_SKB_VLAN_PUSH = 18  # enum bpf_func_id
_PASS = 0  # TCX_PASS

_PUSH_MARK = b"".join(
    (
        _INSN.pack(_LOAD32, _R1 << 4 | _R3, _MARK, 0),  # TPID << 16 | TCI
        _INSN.pack(_IF_0, _R3, 4, 0),
        _INSN.pack(_MOV64, _R3 << 4 | _R2, 0, 0),
        _INSN.pack(_RSH64_IMM, _R2, 0, 16),
        _INSN.pack(_TO_BE, _R2, 0, 16),
        _INSN.pack(_CALL, 0, 0, _SKB_VLAN_PUSH),  # takes the lower 16 bits of each
        _INSN.pack(_MOV64_IMM, _R0, 0, _PASS),
        _INSN.pack(_EXIT, 0, 0, 0),
    )
)


@contextmanager
def offloading(namespace: Namespace, ifname: str) -> Iterator[None]:
    """As long as it lasts, what leaves the device gets the tag that is its socket's SO_MARK: TPID << 16 | TCI."""
    with Program.load(ProgSpec(name="test_push_tag", type=ProgType.SCHED_CLS), _PUSH_MARK) as program:
        ifindex = int(namespace.ip("-o", "link", "show", "dev", ifname).split(":")[0])
        request = bpf.attr(_LINK_CREATE.pack(program.fd, ifindex, _TCX_EGRESS, 0))
        with namespace.entered():
            link = bpf.Fd(bpf.call_or_fail(Command.LINK_CREATE, request, "attach a test's program"))
        with link:
            yield


def send_offloaded(namespace: Namespace, ifname: str, frame: bytes) -> None:
    """Send a frame out of a device with its outermost tag beside it.

    Raises:
        OSError: the device cannot send it.
    """
    (tag,) = struct.unpack_from("!I", frame, _MACS)
    with offloading(namespace, ifname), namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((ifname, 0))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", tag))
        raw.send(frame[:_MACS] + frame[_MACS + _TAG :])

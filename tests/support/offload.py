"""A VM whose NIC does VLAN offload: the outermost tag travels beside the frame (skb->vlan_tci), not in it.

VLAN devices do that on a veth; kernels without them have a program at the NIC's egress do the same.
"""

from __future__ import annotations

import struct

from vxagent.datapath import bpf
from vxagent.datapath.bpf import Command
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.lab.namespaces import Namespace
from vxagent.lab.traffic import send_frames

_TCX_EGRESS = 47  # <linux/bpf.h>
_LINK_CREATE = struct.Struct("=4I")  # prog_fd, target_ifindex, attach_type, flags
_MACS, _TAG = 12, 4

# struct bpf_insn: opcode, registers (source << 4 | destination), offset, immediate
_INSN = struct.Struct("=BBhi")
_MOV64_IMM, _CALL, _EXIT = 0xB7, 0x85, 0x95
_R0, _R2, _R3 = 0, 2, 3
_SKB_VLAN_PUSH = 18  # enum bpf_func_id
_PASS = 0  # TCX_PASS


def send_offloaded(namespace: Namespace, ifname: str, frame: bytes) -> None:
    """Send a frame out of a device with its outermost tag beside it.

    Raises:
        OSError: the device cannot send it.
    """
    tpid, tci = struct.unpack_from("!HH", frame, _MACS)
    code = b"".join(
        (
            _INSN.pack(_MOV64_IMM, _R2, 0, int.from_bytes(struct.pack("!H", tpid), "little")),  # a __be16
            _INSN.pack(_MOV64_IMM, _R3, 0, tci),
            _INSN.pack(_CALL, 0, 0, _SKB_VLAN_PUSH),
            _INSN.pack(_MOV64_IMM, _R0, 0, _PASS),
            _INSN.pack(_EXIT, 0, 0, 0),
        )
    )
    with Program.load(ProgSpec(name="test_push_tag", type=ProgType.SCHED_CLS), code) as program:
        ifindex = int(namespace.ip("-o", "link", "show", "dev", ifname).split(":")[0])
        request = bpf.attr(_LINK_CREATE.pack(program.fd, ifindex, _TCX_EGRESS, 0))
        with namespace.entered(), bpf.Fd(bpf.call_or_fail(Command.LINK_CREATE, request, "attach a test's program")):
            send_frames(namespace, ifname, frame[:_MACS] + frame[_MACS + _TAG :])

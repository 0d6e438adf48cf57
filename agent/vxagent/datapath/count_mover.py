"""Adds what one table has counted to another, exactly, while programs go on counting in the other.

User space cannot: between its read and its write a program may count. A small program can, run once for each row.
It takes each number out of the old row by an atomic exchange with 0, and adds it to the new row by an atomic
addition: programs add without one, but on their own CPU, where nothing of this program comes in between. Whoever
ends the agent in between two rows ends nothing half done, and the rows that are moved already are 0.

Nobody may count in the old table any more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from vxagent.datapath import bpf
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.datapath.convert import offsets
from vxagent.datapath.description import Members

_SPEC = ProgSpec(name="vx_move_counts", type=ProgType.SCHED_CLS)
_KEY_ROOM = 32

# <linux/bpf.h>
_MOV, _MOV_IMM, _ADD_IMM = 0xBF, 0xB7, 0x07
_LOAD_32, _STORE_32, _ATOMIC_64 = 0x61, 0x63, 0xDB
_LOAD_MAP, _CALL, _EXIT = 0x18, 0x85, 0x95
_JUMP_IF_GREATER, _JUMP_IF_EQUAL_IMM, _JUMP_IF_LESS_IMM = 0x2D, 0x15, 0xA5
_XCHG, _ADD = 0xE1, 0x00  # what an atomic operation does
_LOOKUP, _LOOKUP_PERCPU = 1, 195
_DATA, _DATA_END = 76, 80  # in struct __sk_buff


class CountMover:
    """Moves the rows of one table to another.

    Args:
        old, new: the tables; their values are numbers of 8 bytes.
        old_value, new_value: the members of these.
        but: members that are no counters.

    Raises:
        BpfError: the kernel refused the program.
    """

    def __init__(
        self, old: Map, old_value: Members, new: Map, new_value: Members, *, but: Collection[str] = ()
    ) -> None:
        there = offsets(old_value)
        pairs = [(there[name], at) for name, at in offsets(new_value).items() if name in there and name not in but]
        self._program = Program.load(_SPEC, _code(old, new, pairs))

    def __enter__(self) -> CountMover:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()

    def move(self, old_key: bytes, new_key: bytes) -> None:
        """Move what a row has to one of the other table, which is there.

        Raises:
            BpfError: the kernel refused.
        """
        data = old_key.ljust(_KEY_ROOM, b"\0") + new_key.ljust(_KEY_ROOM, b"\0")
        self._program.test_run(data)


def _code(old: Map, new: Map, pairs: list[tuple[int, int]]) -> bytes:
    """r7: the new row; r8: the CPU whose old values are next. Both keys are copied from the frame to the stack, the new
    one at r10 - 32, the old one below."""
    old_key, new_key = -2 * _KEY_ROOM, -_KEY_ROOM
    words = range(0, 2 * _KEY_ROOM, 4)
    move = b"".join(
        _insn(_MOV_IMM, 1) + _insn(_ATOMIC_64, 0, 1, at, _XCHG) + _insn(_ATOMIC_64, 7, 1, to, _ADD) for at, to in pairs
    )
    cpus = bpf.possible_cpus() if old.spec.per_cpu else 1
    look = _lookup(old, old_key, percpu=old.spec.per_cpu)
    found = _insn(_JUMP_IF_EQUAL_IMM, 0, 0, _length(move), 0) + move
    loop = look + found + _insn(_ADD_IMM, 8, 0, 0, 1)
    loop += _insn(_JUMP_IF_LESS_IMM, 8, 0, -_length(loop) - 1, cpus)
    body = (
        _lookup(new, new_key, percpu=False)
        + _insn(_JUMP_IF_EQUAL_IMM, 0, 0, _length(loop) + 2, 0)
        + _insn(_MOV, 7, 0)
        + _insn(_MOV_IMM, 8)
        + loop
    )
    copy = b"".join(_insn(_LOAD_32, 5, 2, at) + _insn(_STORE_32, 10, 5, old_key + at) for at in words)
    inside = (
        _insn(_LOAD_32, 2, 1, _DATA)
        + _insn(_LOAD_32, 3, 1, _DATA_END)
        + _insn(_MOV, 4, 2)
        + _insn(_ADD_IMM, 4, 0, 0, 2 * _KEY_ROOM)
        + _insn(_JUMP_IF_GREATER, 4, 3, _length(copy) + _length(body))
    )
    return inside + copy + body + _insn(_MOV_IMM, 0) + _insn(_EXIT)


def _lookup(opened: Map, key: int, *, percpu: bool) -> bytes:
    """r0 = the row whose key is on the stack; of a per-CPU map that of the CPU in r8."""
    return (
        _insn(_LOAD_MAP, 1, 1, 0, opened.fd)  # BPF_PSEUDO_MAP_FD
        + _insn(0)
        + _insn(_MOV, 2, 10)
        + _insn(_ADD_IMM, 2, 0, 0, key)
        + (_insn(_MOV, 3, 8) if percpu else b"")
        + _insn(_CALL, 0, 0, 0, _LOOKUP_PERCPU if percpu else _LOOKUP)
    )


def _insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, src << 4 | dst, offset, immediate)


def _length(code: bytes) -> int:
    return len(code) // 8

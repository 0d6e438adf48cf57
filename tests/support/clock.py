"""Programs whose time is a number that the test sets.

Ageing, rates and whatever else goes by the clock are then exact, and an hour takes no time. The bytecode is the
switch's own but for calls of the kernel's clocks: each becomes a call of a function, behind its end, that reads a map.
"""

from __future__ import annotations

import struct

from vxagent.datapath.bpf_map import Map, MapSpec, MapType

_INSN = struct.Struct("=BBhi")  # opcode, source << 4 | destination register, offset, immediate
_CALL, _LOAD_IMMEDIATE, _LOAD, _EXIT = 0x85, 0x18, 0x79, 0x95
_PSEUDO_CALL, _PSEUDO_MAP_VALUE = 1, 2  # <linux/bpf.h>
_CLOCKS = {5, 125, 160}  # ktime_get_ns, ktime_get_boot_ns, ktime_get_coarse_ns


class Clock:
    """A clock that stands still. Close it."""

    def __init__(self) -> None:
        self._map = Map.create(MapSpec(name="clock", type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1))
        self.now = 0

    def set(self, now: int) -> None:
        """Nanoseconds."""
        self.now = now
        self._map.update(bytes(4), struct.pack("=Q", now))

    def patch(self, code: bytes) -> bytes:
        """The bytecode with this clock in place of the kernel's."""
        insns = list(_INSN.iter_unpack(code))
        clock = len(insns)
        calls = [at for at, insn in enumerate(insns) if insn[:2] == (_CALL, 0) and insn[3] in _CLOCKS]
        if not calls:
            return code  # what nobody calls the verifier does not take
        for at in calls:
            insns[at] = (_CALL, _PSEUDO_CALL << 4, 0, clock - at - 1)
        insns += [
            (_LOAD_IMMEDIATE, _PSEUDO_MAP_VALUE << 4 | 1, 0, self._map.fd),  # r1 = the map's only value
            (0, 0, 0, 0),
            (_LOAD, 1 << 4, 0, 0),  # r0 = *r1
            (_EXIT, 0, 0, 0),
        ]
        return b"".join(_INSN.pack(*insn) for insn in insns)

    def close(self) -> None:
        """Let go of the map; programs that use it keep it."""
        self._map.close()

"""The switch's programs: declared once, loaded as one generation."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from vxagent.datapath import abi, maps
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType, relocate

TC = ProgSpec(name="vx_tc", type=ProgType.SCHED_CLS)
WALK = ProgSpec(name="vx_walk", type=ProgType.SCHED_CLS)
FLOOD = ProgSpec(name="vx_flood", type=ProgType.SCHED_CLS)
SNOOP = ProgSpec(name="vx_snoop", type=ProgType.SCHED_CLS)
LEASE = ProgSpec(name="vx_lease", type=ProgType.SCHED_CLS)
REPLICATE = ProgSpec(name="vx_replicate", type=ProgType.SCHED_CLS)
TUNNEL = ProgSpec(name="vx_tunnel", type=ProgType.SCHED_CLS)
OUT = ProgSpec(name="vx_out", type=ProgType.SCHED_CLS)
SAY = ProgSpec(name="vx_say", type=ProgType.SCHED_CLS)
CARRY = ProgSpec(name="vx_carry", type=ProgType.SCHED_CLS)
XDP = ProgSpec(name="vx_xdp", type=ProgType.XDP, attach_type=AttachType.XDP)

PROGRAMS = (WALK, TUNNEL, TC, FLOOD, REPLICATE, SNOOP, LEASE, OUT, CARRY, SAY, XDP)

_TAIL_CALLED = {
    abi.Prog.FLOOD: FLOOD,
    abi.Prog.SNOOP: SNOOP,
    abi.Prog.LEASE: LEASE,
    abi.Prog.WALK: WALK,
    abi.Prog.REPLICATE: REPLICATE,
    abi.Prog.TUNNEL: TUNNEL,
}


class Generation:
    """All programs of one load and the tail-call table that ties them together.

    The table lives as long as somebody holds or pins it: the kernel empties a table that only programs
    refer to. Therefore whoever wants the programs to outlive this process pins `progs`.
    """

    def __init__(self, progs: Map, programs: dict[str, Program]) -> None:
        self.progs = progs
        self.programs = programs

    @classmethod
    def load(cls, code: Mapping[str, bytes], shared: Mapping[str, Map]) -> Generation:
        """Load every program against the shared maps and a new tail-call table.

        Args:
            code: function name → bytecode with sentinels.
            shared: the switch's maps by name.

        Raises:
            BpfError: the kernel refused.
        """
        generation = cls(Map.create(maps.progs_spec()), {})
        try:
            generation._load(code, {**shared, maps.PROGS: generation.progs})
        except BaseException:
            generation.close()
            raise
        return generation

    def wrong_tail_calls(self) -> list[str]:
        """The programs that the table of tail calls should lead to and does not."""
        return [
            spec.name
            for slot, spec in _TAIL_CALLED.items()
            if self.progs.lookup(struct.pack("=I", slot)) != struct.pack("=I", self.programs[spec.name].id)
        ]

    def mend_tail_call(self, name: str) -> None:
        """Have it lead there. Raises BpfError."""
        for slot, spec in _TAIL_CALLED.items():
            if spec.name == name:
                self.progs.update(struct.pack("=I", slot), struct.pack("=I", self.programs[name].fd))

    def close(self) -> None:
        """Let go of the descriptors."""
        for program in self.programs.values():
            program.close()
        self.progs.close()

    def _load(self, code: Mapping[str, bytes], named: Mapping[str, Map]) -> None:
        """The verifier takes its time, but does not mind others: each program is loaded by a thread of its own."""
        fds = {number: named[name].fd for name, number in maps.sentinels().items()}
        with ThreadPoolExecutor(len(PROGRAMS)) as pool:
            loads = {spec.name: pool.submit(Program.load, spec, relocate(code[spec.name], fds)) for spec in PROGRAMS}
        self.programs.update({name: load.result() for name, load in loads.items() if not load.exception()})
        for name in [name for name in loads if name not in self.programs]:
            loads.pop(name).result()  # raises what went wrong, of which nothing here may know: see `Changes.in_turn`
        for slot, spec in _TAIL_CALLED.items():
            self.progs.update(struct.pack("=I", slot), struct.pack("=I", self.programs[spec.name].fd))

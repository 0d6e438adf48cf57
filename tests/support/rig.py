"""The switch's programs on unpinned maps, run on frames with BPF_PROG_TEST_RUN.

    frame, ifindex ──► vx_tc ──► verdict, frame, counters

Nothing is attached to a device and nothing is pinned: a rig leaves nothing behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.clock import Clock
from vxagent.core.tables import Row, Table
from vxagent.datapath import abi, codec, maps, source
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType, TestRun, relocate
from vxagent.datapath.epoch import Epoch
from vxagent.datapath.programs import Generation

SKB_SIZE = 192  # struct __sk_buff
SKB_OFFSETS = {
    "len": 0,
    "pkt_type": 4,
    "mark": 8,
    "protocol": 16,
    "vlan_present": 20,
    "vlan_tci": 24,
    "vlan_proto": 28,
    "priority": 32,
    "ingress_ifindex": 36,
    "ifindex": 40,
    "cb0": 48,
    "cb1": 52,
    "cb2": 56,
    "cb3": 60,
    "cb4": 64,
    "wire_len": 160,
    "gso_segs": 164,
    "gso_size": 176,
}
"""Members of struct __sk_buff; a test run takes mark, priority, ifindex, cb and gso, and gives all back."""

PRELUDE = Path(__file__).parents[1] / "bpf" / "prelude.c"

SMALL = maps.Sizes(
    ports=256,
    segments=64,
    memberships=4096,
    fdb=1024,
    moves=1024,
    groups=1024,
    neighbours=512,
    counters=1024,
    drops=1024,
    events=4096,
)


def skb(**members: int) -> bytes:
    """A struct __sk_buff with these members."""
    data = bytearray(SKB_SIZE)
    for name, value in members.items():
        struct.pack_into("=I", data, SKB_OFFSETS[name], value)
    return bytes(data)


def skb_member(ctx: bytes, name: str) -> int:
    """One member of a struct __sk_buff."""
    return int(struct.unpack_from("=I", ctx, SKB_OFFSETS[name])[0])


def xdp_md(length: int, ifindex: int, queue: int = 0) -> bytes:
    """A struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
    return struct.pack("=6I", 0, length, 0, ifindex, queue, 0)


class Rig:
    """Maps, one generation of programs and what tests want of them. Close it.

    Args:
        cache: directory for bytecode.
        shipped: where shipped bytecode is; a path with nothing there: none.
        clock: by which the programs go instead of the kernel's.
    """

    def __init__(
        self,
        cache: Path,
        sizes: maps.Sizes = SMALL,
        *,
        shipped: Path = source.SHIPPED,
        clock: Clock | None = None,
    ) -> None:
        self.cache = cache
        self.maps = {name: Map.create(spec) for name, spec in maps.declare(sizes).items()}
        code = source.load(cache, shipped=shipped).programs
        if clock is not None:
            code = {name: clock.patch(insns) for name, insns in code.items()}
        self.generation = Generation.load(code, self.maps)
        self._others: list[Map | Program] = []

    def close(self) -> None:
        """Let go of everything."""
        for other in self._others:
            other.close()
        self.generation.close()
        for opened in self.maps.values():
            opened.close()

    def program(self, name: str) -> Program:
        """One of the switch's programs by its function's name."""
        return self.generation.programs[name]

    def compile(
        self, main: Path, specs: tuple[ProgSpec, ...], own: Mapping[str, MapSpec] | None = None
    ) -> tuple[dict[str, Program], dict[str, Map]]:
        """Load programs of a test's own C file, which may use the switch's headers and maps.

        Args:
            own: the file's own maps; there they are `M(name)` like the others.

        Returns:
            Programs and own maps, by name; the rig closes them.
        """
        own = own or {}
        code = source.load(self.cache, source.Source.of(main, [spec.name for spec in specs], map_names=own))
        made = {name: Map.create(spec) for name, spec in own.items()}
        named = {**self.maps, maps.PROGS: self.generation.progs, **made}
        fds = {number: named[name].fd for name, number in maps.sentinels(own).items()}
        loaded = {spec.name: Program.load(spec, relocate(code.programs[spec.name], fds)) for spec in specs}
        self._others += [*made.values(), *loaded.values()]
        return loaded, made

    def prelude(self) -> Program:
        """A program that puts a tag into skb->vlan_tci and goes on as vx_tc."""
        entry = MapSpec(name="entry", type=MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=1)
        programs, own = self.compile(PRELUDE, (ProgSpec(name="prelude", type=ProgType.SCHED_CLS),), {"entry": entry})
        own["entry"].update(struct.pack("=I", 0), struct.pack("=I", self.program("vx_tc").fd))
        return programs["prelude"]

    def put(self, table: Table, key: int, row: Row) -> None:
        """Write one row."""
        self.maps[table].update(codec.encode_key(table, key), codec.encode(table, row))
        self.changed()

    def changed(self) -> None:
        """What the agent does after it has changed a table: flows that are remembered no longer count."""
        Epoch(self.maps["epochs"]).rise()

    def get(self, table: Table, key: int) -> Row | None:
        """Read one row; None where a hash has none."""
        value = self.maps[table].lookup(codec.encode_key(table, key))
        return None if value is None else codec.decode(table, value)

    def clear(self) -> None:
        """Empty every map, so that a test starts from nothing."""
        for opened in self.maps.values():
            _clear(opened)

    def tc(self, frame: bytes, ifindex: int = 1, **members: int) -> TestRun:
        """Run vx_tc on a frame that came in at the device (which must exist; 1 is lo)."""
        return self.program("vx_tc").test_run(frame, skb(ifindex=ifindex, **members))

    def xdp(self, frame: bytes, ifindex: int = 1) -> TestRun:
        """Run vx_xdp on a frame that came in at the device."""
        return self.program("vx_xdp").test_run(frame, xdp_md(len(frame), ifindex))

    def traffic(self, index: int) -> dict[str, tuple[int, ...]]:
        """Member → values of one index of `traffic`, summed over all CPUs."""
        sums = [0] * (abi.TRAFFIC.size // 8)
        for values in abi.TRAFFIC.struct.iter_unpack(self.maps["traffic"].lookup(struct.pack("=I", index)) or b""):
            sums = [a + b for a, b in zip(sums, values, strict=True)]
        four = abi.COUNTED_VERDICTS
        return {
            "packets": tuple(sums[:four]),
            "bytes": tuple(sums[four : 2 * four]),
            "tx": (sums[2 * four], sums[2 * four + 1]),
            "copies": (sums[2 * four + 2],),
        }

    def drops(self, kind: abi.DropKind = abi.DropKind.FRAME) -> dict[tuple[int, int, str], tuple[int, int]]:
        """(port, segment, reason) → (packets, bytes) of this kind, summed over all CPUs."""
        return {(port, segment, reason): value for (port, segment, reason, of), value in self._drops() if of == kind}

    def _drops(self) -> Iterator[tuple[tuple[int, int, str, int], tuple[int, int]]]:
        for batch in self.maps["drops"].batches():
            stride = len(batch.values) // batch.count
            for at, (port, segment, reason, kind) in enumerate(abi.DROP_KEY.struct.iter_unpack(batch.keys)):
                values = list(abi.DROP_COUNT.struct.iter_unpack(batch.values[at * stride : (at + 1) * stride]))
                key = (port, segment, abi.reason_label(reason), kind)
                yield key, (sum(p for p, _ in values), sum(b for _, b in values))


def _clear(opened: Map) -> None:
    spec = opened.spec
    if spec.type in (MapType.RINGBUF, MapType.DEVMAP):
        return
    for batch in opened.batches():
        if spec.type in (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LPM_TRIE):
            for at in range(0, len(batch.keys), spec.key_size):
                opened.delete(bytes(batch.keys[at : at + spec.key_size]))
        elif any(batch.values):
            opened.update_batch(bytes(batch.keys), bytes(len(batch.values)))

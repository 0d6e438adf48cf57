"""What an open data path holds: one set of tables, its links and programs, and who reads and writes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set

from vxagent.core.tables import Table
from vxagent.datapath import abi, bpf, codec, programs
from vxagent.datapath.attachments import Attachments
from vxagent.datapath.base import Event
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import Program, ProgSpec
from vxagent.datapath.bytecode import Bytecode
from vxagent.datapath.counters import Counters
from vxagent.datapath.epoch import Epoch
from vxagent.datapath.fdb_map import FdbMap
from vxagent.datapath.groups import GroupMaps
from vxagent.datapath.lease_map import LeaseMap
from vxagent.datapath.mending import Mender
from vxagent.datapath.pins import DESCRIPTION
from vxagent.datapath.programs import Generation
from vxagent.datapath.ring import RingReader
from vxagent.datapath.row_writer import RowWriter
from vxagent.datapath.table_reader import TableReader
from vxagent.datapath.table_set import TableSet
from vxagent.datapath.xdp import XdpDevices
from vxagent.errors import HostError

log = logging.getLogger(__name__)


class Opened:
    """An open set of tables and all that works on it.

    Attributes:
        generation: the programs of this process; None: none were loaded.
    """

    def __init__(self, tables: TableSet, attachments: Attachments, xdp: XdpDevices, mender: Mender) -> None:
        maps = tables.maps
        self.tables = tables
        self.attachments = attachments
        self.xdp = xdp
        self.mender = mender
        self.reader = TableReader(maps)
        self.epoch = Epoch(maps["epochs"])
        self.fdb = FdbMap(maps["fdb"], maps["moves"], maps["learning"], maps["forgotten"])
        self.leases = LeaseMap(maps)
        self.groups = GroupMaps(maps)
        self.counters = Counters(maps)
        self.writer = RowWriter(
            maps,
            fdb=self.fdb,
            groups=self.groups,
            counters=self.counters,
            epoch=self.epoch,
        )
        self.ring = RingReader(maps["events"])
        for name, opened in maps.items():
            mender.ledger.note(tables.pins.map(name), opened)
        self._description = Map.open_as_it_is(tables.pins.description, DESCRIPTION)
        if self._description is not None:
            mender.ledger.note(tables.pins.description, self._description)
        self.generation: Generation | None = None

    @property
    def maps(self) -> Mapping[str, Map]:
        """The tables by name."""
        return self.tables.maps

    def close(self) -> None:
        """Let go of it."""
        self.let_go_of_pins()
        self.ring.close()
        if self.generation is not None:
            self.generation.close()
        if self._description is not None:
            self._description.close()
        self.tables.close()

    def let_go_of_pins(self) -> None:
        """Stand behind its pins no more: other tables have taken over, or the agent ends."""
        self.mender.ledger.clear()
        self.attachments.close()
        self.xdp.close()

    def load(self, code: Bytecode) -> int:
        """Load a generation of programs and pin its tail-call table; return its number.

        Raises:
            BpfError, OSError: the kernel refused; the one before stays, and nothing of the new one.
        """
        generation = Generation.load(code.programs, self.maps)
        try:
            number = max(self.tables.pins.generations(), default=0) + 1
            bpf.pin(generation.progs.fd, self.tables.pins.generation(number))
        except BaseException:
            generation.close()
            raise
        self.mender.ledger.note(self.tables.pins.generation(number), generation.progs)
        self.generation = generation
        return number

    def forget_generation(self, number: int) -> None:
        """Unpin the tail-call table of one that nothing runs any more."""
        pins = self.tables.pins
        self.mender.ledger.forget(pins.generation(number))
        pins.remove_generation(number)

    def drop_generation(self, number: int, previous: Generation | None) -> None:
        """Let go of the one that was loaded last; no link runs it."""
        dropped, self.generation = self.generation, previous
        try:
            self.forget_generation(number)
        finally:
            if dropped is not None:
                dropped.close()

    def swap(self) -> None:
        """Have every link run the programs that are loaded: all of them, or, where the kernel refuses one, none.

        Raises:
            BpfError: the kernel refused.
            HostError: a link does not run what it should.
        """
        assert self.generation is not None
        tc, out, xdp = (self.generation.programs[spec.name] for spec in (programs.TC, programs.OUT, programs.XDP))
        ran = (self.attachments.program_ids(), self.xdp.program_ids())
        try:
            self.attachments.swap(tc, out)
            self.xdp.swap(xdp)
            self._check_runs(tc, xdp)
        except BaseException:
            self._swap_back(self.attachments, programs.TC, ran[0])
            self._swap_back(self.xdp, programs.XDP, ran[1])
            raise

    def _check_runs(self, tc: Program, xdp: Program) -> None:
        others = (self.attachments.program_ids() - {tc.id}) | (self.xdp.program_ids() - {xdp.id})
        if others:
            raise HostError(f"links still run programs {sorted(others)} after they were swapped")

    def runs_somewhere(self) -> bool:
        """A link runs a program of this process's generation."""
        if self.generation is None:
            return False
        ours = {program.id for program in self.generation.programs.values()}
        return bool(ours & (self.attachments.program_ids() | self.xdp.program_ids()))

    def _swap_back(self, hook: Attachments | XdpDevices, spec: ProgSpec, ran: Set[int]) -> None:
        if len(ran) != 1:  # nothing ran, or an older swap was cut short
            return
        try:
            with Program.open(next(iter(ran)), spec) as before:
                hook.swap(before)
        except HostError as error:
            log.error("cannot swap back: %s", error)  # noqa: TRY400  # the trace would say nothing more

    def ageing_ns(self) -> int:
        """After how long a learned entry counts no more; 0: never."""
        value = self.maps[Table.SETTINGS].lookup(codec.encode_key(Table.SETTINGS, 0))
        return abi.SETTINGS.unpack(value)["ageing_ns"] if value else 0

    def count_anew(self) -> None:
        """How many entries and leases each port has."""
        self.fdb.recount()
        self.leases.sweep()


def read_event(record: bytes) -> Event:
    """A record of the event ring."""
    time_ns, kind, port, other_port, segment, mac, _ = abi.EVENT.struct.unpack(record)
    return Event(
        time_ns=time_ns,
        type=kind,
        port=port,
        other_port=other_port,
        segment=segment,
        mac=int.from_bytes(mac, "big"),
    )

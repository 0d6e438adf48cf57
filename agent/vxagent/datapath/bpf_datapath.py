"""The data path in the kernel: `datapath.base.Datapath` by bpf(2).

Maps and links are pinned and outlive the agent. Programs come in generations: a new one is loaded, probed, and its
tail-call table pinned, then every link is swapped to it, then the tables of older ones are removed. Where this build
or its settings want other maps than those that are pinned, a second set of them is made and filled (`open`,
`reload`), the agent makes its rows what it wants, and then the set takes over together with its programs
(`take_over`). Killed at any point, the agent leaves programs that work, and the next `open` finishes or undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vxagent.core.audit import Fault, XdpAt
from vxagent.core.effects import (
    AddCounts,
    Announce,
    Attach,
    ClearCounters,
    DeleteRow,
    Detach,
    EndLeases,
    FlushFdb,
    Mend,
    PutLease,
    PutRow,
    SetXdp,
    Xdp,
)
from vxagent.core.tables import Rows, Table
from vxagent.datapath import abi, bpf, bpf_link, bpffs, codec, description, errands, maps, programs, source
from vxagent.datapath.attachments import Clsact, ClsactAttachments, TcxAttachments, attachments_of
from vxagent.datapath.base import EVENTS_AT_ONCE, Drop, Event, FdbEntry, Learning, Lease, Multicast, Traffic
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import Program, ProgSpec
from vxagent.datapath.ledger import Ledger
from vxagent.datapath.mending import Mender
from vxagent.datapath.opened import Opened, read_event
from vxagent.datapath.pins import Pins
from vxagent.datapath.renewal import renew
from vxagent.datapath.table_reader import TableBytes
from vxagent.datapath.table_set import TableSet
from vxagent.datapath.takeover import Takeover, choose_tables
from vxagent.datapath.xdp import XdpDevices, links_below
from vxagent.errors import HostError


class BpfDatapath:
    """Maps, programs and links under one pin root.

    Changes come from one thread at a time; reads may come from others meanwhile. `open` and `close` exclude
    everything else. The process is in the switch's network namespace before the first call.
    """

    def __init__(
        self,
        pin_root: Path,
        cache_dir: Path,
        *,
        mount_at: Path | None = None,
        sizes: maps.Sizes = maps.DEFAULT_SIZES,
        clsact: Clsact | None = None,
        force_clsact: bool = False,
    ) -> None:
        """Nothing happens before `open`.

        Args:
            pin_root: where pins go.
            cache_dir: for bytecode compiled here.
            mount_at: where the bpffs of the pins is, mounted if it is not; by default /sys/fs/bpf for what
                lies in there, else `pin_root`.
            sizes: of the maps.
            clsact: stands in for tcx before kernel 6.6.
            force_clsact: use it in any case.
        """
        self._pins = Pins(pin_root)
        self._mount = mount_at or bpffs.mount_point(pin_root)
        self._cache = cache_dir
        self._sizes = sizes
        self._clsact = clsact
        self._force_clsact = force_clsact
        self._objects: Opened | None = None
        self._takeover: Takeover | None = None
        self._abi = b""
        self._events: list[Event] = []

    def open(self, *, replace: bool = True) -> None:
        """Create or open the pinned maps; with `replace`, load the programs and swap them everywhere.

        Where other maps are wanted than those that are pinned, what ran before goes on until `take_over`.

        Without `replace`, what is there is taken as it is: programs go on unchanged, maps may have other sizes, and
        the first `attach` loads programs for itself.

        Raises:
            HostError: kernel too old, no bytecode, no bpffs, no right, pinned maps that nobody knows, or programs
                that the kernel refuses or that do not pass their probe; what ran before goes on.
        """
        bpf.check_kernel()
        code = source.load(self._cache) if replace else None  # what may well fail comes before any change
        self._abi = source.abi()
        bpffs.ensure(self._mount, self._pins.root)
        fresh = self._pins.is_empty()
        try:
            self._pins.make()
            tables, self._takeover = choose_tables(self._pins, description.of_build(self._sizes), adopt=not replace)
            self._objects = self._opened(tables)
            if code is not None:
                renew(self._objects, code, swap=self._takeover is None)
        except BaseException:
            self.close()
            if fresh:  # then nothing of it stays
                with suppress(HostError):
                    self.destroy()
            raise

    def take_over(self) -> None:
        """Have new tables, if there are any, take over from those that programs go by until now.

        Raises:
            HostError: the kernel refused; unless it did so in the midst of it, what ran before goes on.
        """
        if self._takeover is not None:
            self._events += self._takeover.finish(self._now)
            self._takeover = None

    def reload(self, *, fdb_entries: int | None = None) -> None:
        """Load the programs anew and swap them everywhere.

        Args:
            fdb_entries: how many entries the FDB shall have room for from now on; None: as many as it has.

        Raises:
            HostError: no bytecode, the kernel refused, or the programs do not pass their probe; what ran before goes
                on.
        """
        if source.abi() != self._abi:
            raise HostError(
                "another version of vxagent was installed since this agent started",
                "have it take over: `vxagent stop`, then `vxagent up`",
            )
        code = source.load(self._cache)
        sizes = self._sizes if fdb_entries is None else replace(self._sizes, fdb=fdb_entries)
        wanted = description.of_build(sizes)
        if wanted == self._now.tables.description:
            renew(self._now, code, swap=self._takeover is None)
            self.take_over()
            return
        before = self._now
        self._pins.remove_unfinished()
        takeover = self._takeover = Takeover.prepare(self._pins, wanted, [before.tables])
        opened: Opened | None = None
        try:
            opened = self._opened(takeover.tables)
            renew(opened, code, swap=False)
            self._objects = opened
            self.take_over()
        except BaseException:
            if takeover.give_up(opened):
                self._takeover, self._objects = None, before
                if opened is not None:
                    opened.let_go_of_pins()
            raise
        before.let_go_of_pins()
        self._sizes = sizes  # whoever reads the tables of before holds them open

    def close(self) -> None:
        """Let go of all descriptors. The kernel goes on forwarding."""
        takeover, self._takeover = self._takeover, None
        if takeover is not None:
            takeover.give_up(self._objects)
        objects, self._objects = self._objects, None
        if objects is not None:
            objects.close()

    def destroy(self) -> None:
        """Take the programs off every device, remove pins, maps and the mount. Works unopened as well.

        Raises:
            HostError: no right to.
        """
        self.close()
        try:
            self._take_off()
            self._pins.remove()
            bpffs.remove(self._mount)
        except OSError as exc:
            raise HostError(f"cannot remove {self._pins.root}: {exc.strerror}", "run as root") from exc

    def put(self, effect: PutRow) -> None:
        """Write one row. Limits that change begin with full buckets, and with no memberships what is new to groups."""
        self._now.writer.put(effect)

    def delete(self, effect: DeleteRow) -> None:
        """Remove one row; one that is absent is no failure, and a lease in its place stays."""
        self._now.writer.delete(effect)

    def attach(self, effect: Attach) -> None:
        """Run the program on a device; where the port runs one already, swap it. The table says whether the device is
        the underlay, and needs one at its egress too."""
        out = self._program(programs.OUT) if self._underlay() == effect.handle else None
        self._now.attachments.attach(effect, self._program(programs.TC), out)

    def detach(self, effect: Detach) -> None:
        """Take it off; a device that is gone is no failure."""
        self._now.attachments.detach(effect)

    def set_xdp(self, effect: SetXdp) -> None:
        """Have XDP do this at the device; what the device does not take is noted and left to tc."""
        self._now.xdp.set(effect, self._program(programs.XDP))

    def flush(self, effect: FlushFdb) -> int:
        """Remove learned entries; return how many."""
        try:
            return self._now.fdb.flush(effect.segment, effect.port)
        finally:
            self._now.epoch.rise()

    def put_lease(self, effect: PutLease) -> None:
        """Make a lease, unless there is a row of that address."""
        self._now.leases.put(effect)

    def end_leases(self, effect: EndLeases) -> None:
        """Remove a port's leases."""
        self._now.leases.end(effect.port, effect.segment)

    def add_counts(self, effect: AddCounts) -> None:
        """Add what a port has counted elsewhere."""
        errands.add_counts(self._program(programs.CARRY), effect)

    def announce(self, effect: Announce) -> None:
        """Tell a network where a MAC is."""
        errands.announce(self._program(programs.SAY), effect)

    def clear_counters(self, effect: ClearCounters) -> None:
        """Forget what a port, a segment or both counted together; of a port alone also what it learned,
        how many leases it has and had to do without, what it took out of its buckets, and what it told."""
        counters = self._now.counters
        counters.clear_traffic(effect.counters)
        if self._takeover is not None:
            self._takeover.handover.clear(effect.counters, effect.port, effect.segment)
        if effect.port or effect.segment:
            counters.clear_drops(effect.port, effect.segment)
        if effect.port and not effect.segment:
            self._now.fdb.clear_learning(effect.port)
            counters.clear_buckets(effect.port)
            counters.clear_leases(effect.port)
            counters.clear_telling(effect.port)

    def age(self) -> int:
        """Remove learned entries that are too old, leases that count no more and memberships that have run out, put
        the counts of the first two right."""
        self._now.leases.sweep()
        self._now.groups.sweep()
        gone = self._now.fdb.age(self._now.ageing_ns())
        if gone:
            self._now.epoch.rise()
        return gone

    def rows(self) -> Rows:
        """The rows that the kernel holds (of `fdb` and `neighbours` those of the agent's)."""
        return self._now.reader.rows()

    def contents(self, table: Table) -> TableBytes:
        """One table's rows of the agent's, as bytes that can be compared."""
        return self._now.reader.read(table)

    def runs(self, wanted: Mapping[int, int]) -> dict[int, bool]:
        """Port handle → whether the tc program in use runs on that device; what is costly to look at is left out."""
        generation, attachments = self._now.generation, self._now.attachments
        if generation is None:
            return {}
        found = attachments.runs(wanted, generation.programs[programs.TC.name])
        underlay = self._underlay()
        if found.get(underlay):
            out = generation.programs[programs.OUT.name]
            found[underlay] = attachments.runs_out(underlay, wanted[underlay], out)
        return found

    def xdp_at(self, wanted: Mapping[int, int]) -> dict[int, XdpAt]:
        """Port handle → what XDP does at that device now."""
        generation = self._now.generation
        return self._now.xdp.at(wanted, generation.programs[programs.XDP.name]) if generation else {}

    def faults(self) -> list[Fault]:
        """What of its own it has lost."""
        return self._now.mender.faults(self._now.generation)

    def mend(self, effect: Mend) -> None:
        """Put right one of these."""
        self._now.mender.mend(effect, self._now.generation)

    def attached(self) -> dict[int, int]:
        """Port handle → ifindex of every program that runs; ifindex 0: its device is gone."""
        return self._now.attachments.attached()

    def xdp(self) -> dict[int, Xdp]:
        """Port handle → what XDP does there, where it does anything."""
        return self._now.xdp.roles(self._now.attachments.attached())

    def xdp_refused(self) -> dict[int, str]:
        """Port handle → why its device did not take the program."""
        return dict(self._now.xdp.refused)

    def xdp_taken(self) -> set[int]:
        """Those of them where that was because of somebody else's program there."""
        return set(self._now.xdp.taken())

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        """Ifindex → the kernel's numbers of the programs of others at tcx ingress, of those devices that have any."""
        return self._now.attachments.foreign(ifindexes)

    def fdb(self, *, segment: int | None = None) -> Iterator[FdbEntry]:
        """The FDB, read in batches; entries aged out already are left out."""
        return self._now.fdb.entries(self._now.ageing_ns(), segment)

    def fdb_room(self) -> int:
        """How many entries the FDB can hold."""
        return self._now.maps["fdb"].spec.max_entries

    def fdb_count(self) -> int:
        """How many entries the FDB holds, those aged out but not yet removed included."""
        return self._now.fdb.count()

    def traffic(self, counters: Sequence[int]) -> list[Traffic]:
        """Sums for these indices of `traffic`, in that order."""
        return self._now.counters.traffic(counters)

    def drops(self) -> list[Drop]:
        """All drop counters."""
        return self._now.counters.drops()

    def learning(self, handles: Sequence[int]) -> list[Learning]:
        """What these ports have learned, in that order."""
        return self._now.counters.learning(handles)

    def leases(self) -> list[Lease]:
        """The leases of all ports that have not run out."""
        return list(self._now.leases.entries())

    def refused_leases(self, handles: Sequence[int]) -> list[int]:
        """How many leases there was no room for, of these ports, in that order."""
        return self._now.counters.refused_leases(handles)

    def suppressed_events(self, handles: Sequence[int]) -> list[int]:
        """How many events of these ports were not told, in that order."""
        return self._now.counters.suppressed_events(handles)

    def multicast(self, places: Mapping[tuple[int, int], int]) -> Multicast:
        """What is known of groups."""
        return self._now.groups.read(places)

    def events_fd(self) -> int | None:
        """That of the ring."""
        return self._now.maps["events"].fd

    def events(self) -> list[Event]:
        """Take the records that wait in the event ring, oldest first, at most EVENTS_AT_ONCE."""
        before, self._events = self._events[:EVENTS_AT_ONCE], self._events[EVENTS_AT_ONCE:]
        return [*before, *map(read_event, self._now.ring.read(EVENTS_AT_ONCE - len(before)))]

    @property
    def _now(self) -> Opened:
        if self._objects is None:
            raise HostError("the data path is not open")
        return self._objects

    def _underlay(self) -> int:
        """The port handle of the underlay device, 0 for none."""
        value = self._now.maps[Table.OVERLAY].lookup(codec.encode_key(Table.OVERLAY, 0))
        return int(abi.OVERLAY.unpack(value)["port"]) if value else 0

    def _opened(self, tables: TableSet) -> Opened:
        ledger = Ledger()
        attachments = attachments_of(self._pins, self._clsact, tables.maps[Table.DEVICES], ledger, tcx=self._has_tcx())
        xdp = XdpDevices(self._pins.xdp, tables.maps["xdp_devices"], ledger)
        return Opened(tables, attachments, xdp, Mender(self._pins, tables.pins, self._mount, ledger))

    def _has_tcx(self) -> bool:
        return not self._force_clsact and bpf_link.has_tcx()

    def _take_off(self) -> None:
        """Take the programs off, as far as pins tell where they are; unopened, whatever the sizes."""
        links_below(self._pins.xdp).remove()
        TcxAttachments(self._pins.links, self._pins.out).remove()
        if self._clsact is None or self._has_tcx():
            return
        for pins in self._pins.sets():
            devices = Map.open(pins.map(Table.DEVICES), maps.declare(self._sizes)[Table.DEVICES], adopt=True)
            if devices is not None:
                with devices:
                    ClsactAttachments(self._clsact, devices).remove()

    def _program(self, spec: ProgSpec) -> Program:
        """One of the generation that is loaded; the first time without one, load it."""
        now = self._now
        if now.generation is None:
            now.load(source.load(self._cache))
        assert now.generation is not None
        if self._takeover is not None:
            self._takeover.go_live()
        return now.generation.programs[spec.name]

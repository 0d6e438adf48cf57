"""Which tables a data path goes by, and how new ones take over from those that programs go by until now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from vxagent.datapath import bpf
from vxagent.datapath.base import Event
from vxagent.datapath.description import Description
from vxagent.datapath.grace import grace_period
from vxagent.datapath.handover import Handover
from vxagent.datapath.opened import Opened, read_event
from vxagent.datapath.pins import Pins
from vxagent.datapath.table_set import TableSet, describe, make_set, open_other, open_set
from vxagent.errors import HostError


class Takeover:
    """Tables that are filled, and about to take over.

    Attributes:
        tables: these.
        handover: how rows get there.
    """

    def __init__(self, tables: TableSet, handover: Handover, *, begun: bool = False) -> None:
        """`begun`: an agent was ended in the midst of it, programs may run by these tables."""
        self.tables = tables
        self.handover = handover
        self._begun = begun

    @classmethod
    def prepare(cls, pins: Pins, wanted: Description, sources: Sequence[TableSet]) -> Takeover:
        """Make tables and fill them from the last of others, which go on.

        Raises:
            HostError: no room for what the agent has put there, or the kernel refused; nothing of them stays.
        """
        made = make_set(pins.next_set(), wanted, sources[-1])
        try:
            handover = Handover(sources, made)
            handover.fill()
        except BaseException:
            with suppress(HostError):  # it is not live: the next one removes it
                made.pins.remove()
            raise
        return cls(made, handover)

    def go_live(self) -> None:
        """From now on programs may run by these tables: they are not to be thrown away. Raises BpfError."""
        live = self.tables.pins.live
        if not live.exists():
            bpf.pin(self.tables.maps["settings"].fd, live)

    def give_up(self, opened: Opened | None) -> bool:
        """Remove what was only prepared; `opened` has its programs, if there are any yet.

        Returns:
            Whether it could be: not where programs run by these tables.
        """
        if self._begun or (opened is not None and opened.runs_somewhere()):
            return False
        with suppress(HostError):
            bpf.unpin(self.tables.pins.live)  # whatever becomes of the others, the next one removes them
            self.tables.pins.remove()
        return True

    def finish(self, opened: Opened) -> list[Event]:
        """Swap the programs of all links to those that are loaded for these tables, and take the others away.

        Returns:
            What nobody has read yet of the events of before.

        Raises:
            HostError: the kernel refused; unless it did so in the midst of it, what ran before goes on.
        """
        with grace_period() as wait:
            self.go_live()
            self.handover.catch_up_closely()
            opened.count_anew()
            self.handover.catch_up()  # to count takes its time, too
            opened.swap()
            self.handover.catch_up()  # so that a station that was heard since is unknown for a moment only
            opened.epoch.rise()
            wait()
        self.handover.catch_up()
        self.handover.move_counts()
        opened.count_anew()
        opened.epoch.rise()
        events = [read_event(record) for record in self.handover.events()]
        for number in self.tables.pins.generations()[:-1]:
            opened.forget_generation(number)
        for source in self.handover.sources:
            source.pins.remove()
        return events


def choose_tables(pins: Pins, wanted: Description, *, adopt: bool) -> tuple[TableSet, Takeover | None]:
    """The tables that are pinned, if they will do, or new ones, filled from them.

    Args:
        adopt: numbers of entries and flags may be others.

    Returns:
        The tables, and how they take over; None: programs go by them already, or there were none.

    Raises:
        HostError: what is pinned is not known, or the kernel refused.
    """
    pins.remove_unfinished()
    sets = pins.sets()
    if not sets:
        return open_set(pins.next_set(), wanted), None
    what = describe(sets[-1], wanted)
    if what == wanted or (adopt and what.is_like(wanted)):
        tables = open_set(sets[-1], what, adopt=adopt)
        others = [] if adopt else [open_other(one, describe(one, wanted)) for one in sets[:-1]]
        return tables, Takeover(tables, Handover(others, tables), begun=True) if others else None
    takeover = Takeover.prepare(pins, wanted, [open_other(one, describe(one, wanted)) for one in sets])
    return takeover.tables, takeover

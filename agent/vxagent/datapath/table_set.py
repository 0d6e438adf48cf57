"""One set of tables: the maps that a generation of programs goes by, described and pinned in one directory.

A set that takes over from another shares with it the maps that are alike, by pinning them a second time, and has new
ones for the rest. So a directory has all that its programs need, and to end a set is to unpin it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from vxagent.datapath import bpf, description
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.description import Described, Description
from vxagent.datapath.pins import SetPins
from vxagent.errors import HostError

_ALWAYS_NEW = frozenset({"flows", "hops"})  # what programs of one generation remember is no other one's to go by
_TOGETHER = ("learning", "forgotten")  # halves of one sum


@dataclass(frozen=True, slots=True)
class TableSet:
    """An open set.

    Attributes:
        pins: where it is.
        description: what it has.
        maps: by name; of a set that is partly gone not all.
    """

    pins: SetPins
    description: Description
    maps: Mapping[str, Map]

    def close(self) -> None:
        """Let go of the descriptors."""
        for opened in self.maps.values():
            opened.close()


def describe(pins: SetPins, own: Description) -> Description:
    """What is in a set. Builds that did not describe theirs had the tables of layout 1.

    Raises:
        HostError: it is not known.
    """
    there = description.read(pins.description)
    if there is None and pins.layout == own.layout:
        return Description(layout=own.layout, tables={n: _as_pinned(pins, n, t) for n, t in own.tables.items()})
    if there is None:
        mend = "take the switch off with `vxagent down` of the version that made it"
        raise HostError(f"the tables in {pins.directory} are of layout {pins.layout}, which nothing describes", mend)
    return there


def open_set(pins: SetPins, what: Description, *, adopt: bool = False) -> TableSet:
    """Open a set of this build, and make what it lacks.

    Args:
        adopt: maps may have other numbers of entries and other flags.

    Raises:
        HostError: a map is not what the description says, or the kernel refused.
    """
    pins.make()
    opened: dict[str, Map] = {}
    try:
        for name, table in what.tables.items():
            opened[name] = Map.open_or_create(pins.map(name), table.spec, adopt=adopt)
        if not pins.description.exists():
            description.write(pins.description, what)
    except BaseException:
        _close(opened)
        raise
    return TableSet(pins, what, opened)


def open_other(pins: SetPins, what: Description) -> TableSet:
    """Open a set of any build; maps that are not there any more are left out.

    Raises:
        HostError: a map is not what the description says.
    """
    opened: dict[str, Map] = {}
    try:
        for name, table in what.tables.items():
            there = Map.open(pins.map(name), table.spec)
            if there is not None:
                opened[name] = there
    except BaseException:
        _close(opened)
        raise
    return TableSet(pins, what, opened)


def make_set(pins: SetPins, what: Description, before: TableSet) -> TableSet:
    """Make and pin a set that can take over from another; its new maps are empty.

    Raises:
        HostError: the kernel refused; nothing of it stays.
    """
    shared = shared_tables(before.description, what)
    opened: dict[str, Map] = {}
    try:
        pins.make()
        for name, table in what.tables.items():
            there = before.maps.get(name) if name in shared else None
            opened[name] = Map.create(table.spec) if there is None else there
            bpf.pin(opened[name].fd, pins.map(name))
        description.write(pins.description, what)
    except BaseException:
        _close({name: one for name, one in opened.items() if name not in shared})
        with suppress(HostError):  # it is not live: the next one removes it
            pins.remove()
        raise
    return TableSet(pins, what, opened)


def shared_tables(old: Description, new: Description) -> set[str]:
    """The names of the maps that programs of both can go by."""
    alike = {name for name, table in new.tables.items() if old.tables.get(name) == table} - _ALWAYS_NEW
    return alike if alike.issuperset(_TOGETHER) else alike.difference(_TOGETHER)


def _as_pinned(pins: SetPins, name: str, table: Described) -> Described:
    """What is said of a map, with the entries that it has."""
    there = Map.open_as_it_is(pins.map(name), name)
    if there is None:
        return table
    with there:
        spec = replace(table.spec, max_entries=there.spec.max_entries, flags=there.spec.flags)
    return replace(table, spec=spec)


def _close(opened: Mapping[str, Map]) -> None:
    for some in opened.values():
        some.close()

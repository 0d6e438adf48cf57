"""What the tables of a switch are, in a form that a build can read which has never seen them.

It is pinned beside the tables, as JSON in the only element of an array. For each map it has the kernel's side (kind,
sizes, entries, flags), the members of the structs that its keys and values are, and a number for what they mean.
Members have the codes of `abi.Layout`, and no gaps: so their offsets need not be told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxagent.datapath import abi, bpf, maps
from vxagent.datapath.bpf_map import Map, MapFlag, MapSpec, MapType
from vxagent.errors import HostError

_NAME = "description"
_KEY = bytes(4)

Members = tuple[tuple[str, str], ...]
"""Member and code, in the order of the struct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One map.

    Attributes:
        spec: as the kernel has it.
        key, value: the members of its structs.
        meaning: as in `maps.MEANINGS`.
    """

    spec: MapSpec
    key: Members
    value: Members
    meaning: int = 1

    def is_like(self, other: Described) -> bool:
        """The same but for the number of entries and flags, that is: with rows that can be read as they are."""
        ours, theirs = self.spec, other.spec
        return (self.key, self.value, self.meaning, ours.type, ours.key_size, ours.value_size) == (
            *(other.key, other.value, other.meaning),
            *(theirs.type, theirs.key_size, theirs.value_size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All maps of one set.

    Attributes:
        layout: VX_LAYOUT of the build that made them.
        tables: name → what it is.
    """

    layout: int
    tables: Mapping[str, Described]

    def is_like(self, other: Description) -> bool:
        """Programs of the one and rows of the other go together, whatever the numbers of entries."""
        return self.tables.keys() == other.tables.keys() and all(
            table.is_like(other.tables[name]) for name, table in self.tables.items()
        )


def of_build(sizes: maps.Sizes) -> Description:
    """What this build wants."""
    tables = {
        name: Described(
            spec=spec,
            key=tuple(maps.STRUCTS[name][0].members.items()),
            value=tuple(maps.STRUCTS[name][1].members.items()),
            meaning=maps.MEANINGS.get(name, 1),
        )
        for name, spec in maps.declare(sizes).items()
    }
    return Description(layout=abi.LAYOUT, tables=tables)


def to_json(description: Description) -> str:
    """As it is pinned."""
    return json.dumps(
        {
            "layout": description.layout,
            "maps": {
                name: {
                    "type": int(table.spec.type),
                    "key_size": table.spec.key_size,
                    "value_size": table.spec.value_size,
                    "max_entries": table.spec.max_entries,
                    "flags": int(table.spec.flags),
                    "key": table.key,
                    "value": table.value,
                    "meaning": table.meaning,
                }
                for name, table in description.tables.items()
            },
        }
    )


def from_json(text: str) -> Description:
    """What was pinned. Maps of a kind that this build does not know are left out.

    Raises:
        ValueError, KeyError, TypeError: it is no such text.
    """
    document = json.loads(text)
    known = {int(kind) for kind in MapType}
    tables = {name: _table(name, given) for name, given in document["maps"].items() if given["type"] in known}
    return Description(layout=int(document["layout"]), tables=tables)


def write(path: Path, description: Description) -> None:
    """Pin it.

    Raises:
        BpfError: the kernel refused.
    """
    text = to_json(description).encode()
    text += bytes(-len(text) % 8)
    spec = MapSpec(name=_NAME, type=MapType.ARRAY, key_size=len(_KEY), value_size=len(text), max_entries=1)
    with Map.create(spec) as made:
        made.update(_KEY, text)
        bpf.pin(made.fd, path)


def read(path: Path) -> Description | None:
    """What is pinned at `path`, or None where nothing is.

    Raises:
        HostError: it cannot be read.
    """
    there = Map.open_as_it_is(path, _NAME)
    if there is None:
        return None
    with there:
        text = (there.lookup(_KEY) or b"").rstrip(b"\0").decode()
    try:
        return from_json(text)
    except (ValueError, KeyError, TypeError) as exc:
        mend = "take the switch off with `vxagent down` of the version that made it"
        raise HostError(f"the description at {path} cannot be read: {exc}", mend) from exc


def _table(name: str, given: dict[str, Any]) -> Described:
    spec = MapSpec(
        name=name,
        type=MapType(given["type"]),
        key_size=int(given["key_size"]),
        value_size=int(given["value_size"]),
        max_entries=int(given["max_entries"]),
        flags=MapFlag(given["flags"]),
    )
    return Described(spec=spec, key=_members(given["key"]), value=_members(given["value"]), meaning=given["meaning"])


def _members(given: list[list[str]]) -> Members:
    return tuple((str(member), str(code)) for member, code in given)

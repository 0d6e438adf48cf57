"""Desired state as one document: what `apply` takes, `diff` compares and `export` gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from vxagent.core.state import State
from vxagent.errors import Invalid
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Port, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Vtep, number

Desired = Segment | Uplink | Vtep | Port | StaticEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a document says, in its order."""

    segments: tuple[Segment, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
    vteps: tuple[Vtep, ...] = ()
    ports: tuple[Port, ...] = ()
    fdb: tuple[StaticEntry, ...] = ()

    def objects(self) -> Iterable[tuple[str, str, Desired]]:
        """(kind, name, object) of each."""
        yield from (("segment", s.name, s) for s in self.segments)
        yield from (("uplink", u.ifname, u) for u in self.uplinks)
        yield from (("vtep", v.address, v) for v in self.vteps)
        yield from (("port", p.id, p) for p in self.ports)
        yield from (("fdb", f"{e.mac} in {e.segment}", e) for e in self.fdb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object that differs.

    Attributes:
        kind: "segment", "uplink", "vtep", "port" or "fdb".
        old, new: None where it is added or deleted.
    """

    kind: str
    name: str
    old: Desired | None
    new: Desired | None

    @property
    def action(self) -> str:
        """ "add", "set" or "delete"."""
        if self.old is None:
            return "add"
        return "set" if self.new is not None else "delete"

    @property
    def what(self) -> tuple[str, ...]:
        """The fields that a "set" changes, such as ``mtu 1500 -> 9000``."""
        if self.old is None or self.new is None:
            return ()
        pairs = ((f.name, getattr(self.old, f.name), getattr(self.new, f.name)) for f in fields(self.new))
        return tuple(f"{name} {_show(old)} -> {_show(new)}" for name, old, new in pairs if old != new)


def export(state: State) -> Contents:
    """All that is desired, whoever made it, by name."""
    return Contents(
        segments=tuple(state.segments[name] for name in sorted(state.segments)),
        uplinks=tuple(state.uplinks[name] for name in sorted(state.uplinks)),
        vteps=tuple(sorted(state.vteps.values(), key=lambda vtep: (vtep.family, number(vtep.address)))),
        ports=tuple(state.ports[name] for name in sorted(state.ports)),
        fdb=tuple(state.fdb[key] for key in sorted(state.fdb)),
    )


def changes_of(state: State, contents: Contents, *, prune: bool) -> list[Change]:
    """What separates the state from the document; objects not in it go if an `apply` made them or `prune`.

    Raises:
        Invalid: an object stands in the document twice.
    """
    there = {(kind, name): old for kind, name, old in export(state).objects()}
    changes: list[Change] = []
    seen: set[tuple[str, str]] = set()
    for kind, name, wanted in contents.objects():
        if (kind, name) in seen:
            raise Invalid(kind, name, "stands in the document twice")
        seen.add((kind, name))
        old = there.pop((kind, name), None)
        new = replace(wanted, applied=old.applied if old is not None else True)
        if old != new:
            changes.append(Change(kind=kind, name=name, old=old, new=new))
    gone = [
        Change(kind=kind, name=name, old=old, new=None) for (kind, name), old in there.items() if prune or old.applied
    ]
    return [*gone, *changes]


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(":".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)

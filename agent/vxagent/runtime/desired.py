"""Desired state as TOML: what people write, and what `export` gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

import msgspec

from vxagent.core.document import Contents
from vxagent.errors import Invalid
from vxagent.protocol.requests import Desired, FdbAdd, PortAttach, Request, SegmentAdd, UplinkAdd, VtepAdd
from vxagent.protocol.shape import Shape
from vxagent.runtime.toml_text import TomlText

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

_SHAPE = Shape(Desired)
# What the model calls a field → the keys that may hold it.
_KEYS = {
    "device": ("ifname", "internal"),
    "port": ("id", "port", "ifname", "internal"),
    "segment": ("segment", "name"),
    "trunk vid": ("trunk",),
    "trunk segment": ("trunk",),
    "fdb": ("mac",),
    "vni": ("vni", "vnis"),
}


class _Table(Protocol[M_co]):
    """A request that makes an object of the model."""

    def model(self) -> M_co: ...


def parse(text: str, file: str) -> Contents:
    """What a document asks for.

    Args:
        text: the TOML.
        file: what messages call it.

    Raises:
        Invalid: not TOML, unknown key, wrong type or a value that can never be right; names file, line and key.
    """
    toml = TomlText(text, file)
    desired = toml.shaped(_SHAPE)
    return Contents(
        segments=_models(toml, "segment", desired.segment, lambda segment: segment.name),
        uplinks=_models(toml, "uplink", desired.uplink, lambda uplink: uplink.ifname),
        vteps=_models(toml, "vtep", desired.vtep, lambda vtep: vtep.address),
        ports=_models(toml, "port", desired.port, lambda port: port.id),
        fdb=_models(toml, "fdb", desired.fdb, lambda entry: (entry.segment, entry.mac)),
    )


def to_tables(contents: Contents) -> Desired:
    """The document that asks for exactly this; what is as by default is left out of its TOML and JSON."""
    return Desired(
        segment=[SegmentAdd.of(segment) for segment in contents.segments],
        uplink=[UplinkAdd.of(uplink) for uplink in contents.uplinks],
        vtep=[VtepAdd.of(vtep) for vtep in contents.vteps],
        port=[PortAttach.of(port) for port in contents.ports],
        fdb=[FdbAdd.of(entry) for entry in contents.fdb],
    )


def to_toml(contents: Contents) -> str:
    """The document as TOML; `parse` gives the same contents back."""
    tables = to_tables(contents)
    named: tuple[tuple[str, Sequence[Request]], ...] = (
        ("segment", tables.segment),
        ("uplink", tables.uplink),
        ("vtep", tables.vtep),
        ("port", tables.port),
        ("fdb", tables.fdb),
    )
    return "\n".join(_table(name, entry) for name, entries in named for entry in entries)


def _table(name: str, entry: Request) -> str:
    pairs = msgspec.to_builtins(entry).items()
    return "".join((f"[[{name}]]\n", *(f"{key} = {_value(value)}\n" for key, value in pairs)))


def _value(value: object) -> str:
    """A TOML value. JSON's strings, numbers, booleans and lists of them are TOML too, but for DEL in strings."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _models(toml: TomlText, kind: str, entries: Sequence[_Table[M]], name: Callable[[M], Hashable]) -> tuple[M, ...]:
    """The objects of one kind. Raises Invalid with file, line and key."""
    found: dict[Hashable, M] = {}
    for index, entry in enumerate(entries):
        path = (kind, index)
        try:
            made = entry.model()
        except Invalid as exc:
            raise _located(toml, path, exc) from exc
        if name(made) in found:
            raise toml.refusal(path, f"{_words(name(made))} stands in the document twice")
        found[name(made)] = made
    return tuple(found.values())


def _located(toml: TomlText, table: tuple[str, int], exc: Invalid) -> Invalid:
    """The model's error with the line of the key, or of the list's element, that it is about."""
    kind, index = table
    keys: dict[str, object] = toml.tables[kind][index]
    key = next((k for k in _KEYS.get(exc.field, (exc.field,)) if k in keys), exc.field)
    given = keys.get(key)
    elements = given if isinstance(given, list) else []
    at = [i for i, element in enumerate(elements) if _holds(str(element), exc.value)]
    return toml.refusal((*table, key, *at[:1]), exc.why, exc.value)


def _holds(element: str, value: object) -> bool:
    """The element is the value; SEGMENT:VID holds two."""
    return str(value) in (element, *element.rpartition(":")[::2])


def _words(name: Hashable) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)

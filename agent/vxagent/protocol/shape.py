"""From JSON or TOML to a request, and what to say when it is none."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec
from msgspec.inspect import EnumType, ListType, StructType, Type, UnionType, type_info

from vxagent.errors import Invalid
from vxagent.protocol.requests import Request

R = TypeVar("R", bound=Request)
Path = tuple[str | int, ...]


class WrongShape(Invalid):
    """A key that is not known, missing or of the wrong type.

    Attributes:
        path: keys and indices to it from the top.
    """

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(str(path[-1]) if path else "body", None, why)


class Shape(Generic[R]):
    """Turns JSON or TOML into one kind of request."""

    def __init__(self, kind: type[R]) -> None:
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def from_json(self, body: bytes) -> R:
        """The request in a body. Raises Invalid, WrongShape."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as exc:
            raise _wrong_shape(self.kind, exc) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Invalid("body", None, f"is not JSON: {exc}") from exc

    def from_tables(self, tables: dict[str, object]) -> R:
        """The request in parsed TOML. Raises WrongShape."""
        try:
            return msgspec.convert(tables, self.kind)
        except msgspec.ValidationError as exc:
            raise _wrong_shape(self.kind, exc) from exc


_TYPES = {
    "int": "a whole number",
    "float": "a number with a point",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "null",
}
_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)


def _wrong_shape(kind: type[Request], exc: msgspec.ValidationError) -> WrongShape:
    """msgspec's message in the words of somebody who writes TOML."""
    found = _AT.fullmatch(str(exc))
    what, at = (found["what"], found["path"] or "") if found else (str(exc), "")
    path: Path = tuple(key or int(index) for key, index in _STEP.findall(at))
    if field := _FIELD.fullmatch(what):
        return WrongShape((*path, field[2]), "is not a known key" if "unknown" in field[1] else "is missing")
    if expected := _EXPECTED.fullmatch(what):
        wanted = [t for t in expected[1].split(" | ") if t != "null" or expected[1] == "null"]
        names = " or ".join(_TYPES.get(t, t) for t in wanted)
        return WrongShape(path, f"must be {names}, not {_TYPES.get(expected[2], expected[2])}")
    if choices := _choices(type_info(kind), path):
        return WrongShape(path, f"must be {' or '.join(choices)}")
    return WrongShape(path, what[:1].lower() + what[1:])


def _choices(at: Type, path: Path) -> list[str]:
    """The values of the enum at a path, [] where there is none."""
    match at:
        case UnionType(types=types):
            return [choice for part in types for choice in _choices(part, path)]
        case StructType(fields=fields) if path:
            return [c for field in fields if field.name == path[0] for c in _choices(field.type, path[1:])]
        case ListType(item_type=item) if path:
            return _choices(item, path[1:])
        case EnumType(cls=cls) if not path:
            return [str(member.value) for member in cls]
    return []

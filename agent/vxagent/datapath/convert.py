"""Rows of one layout as rows of another, by the names of their members.

What has the same name is copied: numbers whatever their width, arrays as far as both go, octets as far as there is
room. What only the new struct has is empty, what only the old one had is dropped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from vxagent.datapath.description import Members

Value = bytes | memoryview

_CODE = re.compile(r"(\d*)([BHIQs])")


class Converter:
    """Makes bytes of one struct out of those of another.

    Attributes:
        same: the structs are alike, and so are the bytes.
    """

    def __init__(self, old: Members, new: Members) -> None:
        self.same = old == new
        self._old = _struct_of(old)
        self._new = _struct_of(new)
        places = {name: at for at, (name, _) in enumerate(_places(old))}
        # for each value of the new struct the place of the old one, or what is empty
        self._from: list[tuple[int | None, int | bytes]] = [
            (places.get(name), b"" if is_octets else 0) for name, is_octets in _places(new)
        ]

    def __call__(self, data: Value) -> bytes | None:
        """The bytes; None if a number is too large for its member."""
        if self.same:
            return bytes(data)
        values = self._old.unpack(data)
        try:
            return self._new.pack(*(empty if at is None else values[at] for at, empty in self._from))
        except struct.error:
            return None


def offsets(members: Members) -> dict[str, int]:
    """Name → offset of every number of 8 bytes; of an array those of its elements, as ``packets[0]``."""
    found: dict[str, int] = {}
    at = 0
    for member, code in members:
        count, letter = _split(code)
        size = struct.calcsize(f"={letter}")
        for index in range(count if letter != "s" else 0):
            if letter == "Q":
                found[_element(member, code, index)] = at + index * size
        at += struct.calcsize(f"={code}")
    return found


def _struct_of(members: Members) -> struct.Struct:
    return struct.Struct("=" + "".join(code for _, code in members))


def _places(members: Members) -> Iterator[tuple[tuple[str, bool], bool]]:
    """(name, whether it is octets) and that again, of each value that unpacking the struct gives. A number and octets
    of the same name are two different things."""
    for member, code in members:
        count, letter = _split(code)
        is_octets = letter == "s"
        for index in range(1 if is_octets else count):
            yield (_element(member, code, index), is_octets), is_octets


def _element(member: str, code: str, index: int) -> str:
    return f"{member}[{index}]" if code[0].isdigit() and not code.endswith("s") else member


def _split(code: str) -> tuple[int, str]:
    match = _CODE.fullmatch(code)
    if match is None:
        raise ValueError(f"no code of a member: {code}")
    return int(match[1] or 1), match[2]

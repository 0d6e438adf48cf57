"""TOML with line numbers, which `tomllib` does not give.

`tomllib` decides whether a text is TOML and what it means. Only when something has to be refused is the text
walked a second time, by a scanner that may rely on its being valid (TOML 1.0.0).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from typing import TypeVar

from vxagent.errors import Invalid
from vxagent.protocol.requests import Request
from vxagent.protocol.shape import Path, Shape, WrongShape

R = TypeVar("R", bound=Request)

_SYNTAX = re.compile(r"(?P<why>.*?)(?: \(at (?:line (?P<line>\d+), column \d+|end of document)\))?", re.DOTALL)


class TomlText:
    """A parsed text that knows where its keys stand.

    Args:
        text: the TOML.
        file: what messages call it.

    Attributes:
        tables: as `tomllib` gives them.

    Raises:
        Invalid: not TOML; names file and line.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        try:
            self.tables = tomllib.loads(text)
        except (ValueError, RecursionError) as exc:  # ValueError: TOMLDecodeError, and numbers beyond int()'s limit
            found = _SYNTAX.fullmatch(str(exc))
            why, line = (found["why"], found["line"]) if found else (str(exc), None)
            last = max(1, len(text.splitlines()))
            raise Invalid(f"{file}:{line or last}", None, f"not TOML: {why[:1].lower()}{why[1:]}") from exc

    def shaped(self, shape: Shape[R]) -> R:
        """The text as one kind of request. Raises Invalid with file, line and key."""
        try:
            return shape.from_tables(self.tables)
        except WrongShape as exc:
            raise self.refusal(exc.path, exc.why) from exc

    def refusal(self, path: Path, why: str, value: object = None) -> Invalid:
        """An error about the key at `path`, or about the nearest table above it that stands there."""
        key = next((str(step) for step in reversed(path) if isinstance(step, str)), "")
        return Invalid(f"{self.file}:{self.line(path)}: {key}", value, why)

    def line(self, path: Path) -> int:
        """The line of the key at `path`, or of the nearest one above it that stands there."""
        lines = lines_of(self.text)
        return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)


def lines_of(text: str) -> dict[Path, int]:
    """Where every key, table and array element of a valid TOML text begins, from line 1."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''(?:[^']|'(?!''))*'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")  # numbers, booleans, dates (which may hold a blank)


class _Scanner:
    """Walks a valid text once. `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # arrays of tables → tables so far
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> None:
        table: Path = ()
        while self._next():
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; returns the table's path."""
        start = self.at
        array = self.text.startswith("[[", start)
        self.at += 2 if array else 1
        *above, name = self._key()
        self.at += 2 if array else 1
        path: Path = ()
        for key in above:
            path = (*path, key)
            self._note(path, start)
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
        path = (*path, name)
        self._note(path, start)
        if array:
            count = self._arrays.get(path, 0)
            self._arrays[path] = count + 1
            path = (*path, count)
            self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self.at
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path, start)
        self.at += 1  # =
        self._next()
        self._value(path)

    def _key(self) -> list[str]:
        """A dotted key; stops at what follows it."""
        keys = []
        while True:
            self._next()
            if self.text[self.at] in "\"'":
                keys.append(tomllib.loads(f"key = {self._take(_STRING)}")["key"])
            else:
                keys.append(self._take(_BARE_KEY))
            self._next()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _value(self, path: Path) -> None:
        match self.text[self.at]:
            case '"' | "'":
                self._take(_STRING)
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        self.at += 1
        while self._next() and self.text[self.at] != "]":
            self._note((*path, index), self.at)
            self._value((*path, index))
            index += 1
            self._comma()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self._next() and self.text[self.at] != "}":
            self._pair(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        self._next()
        if self.text[self.at] == ",":
            self.at += 1

    def _next(self) -> bool:
        """Go to the next character that means something; False at the end."""
        self._take(_BLANK)
        return self.at < len(self.text)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise AssertionError(f"tomllib took a text that the scanner does not, at character {self.at}")
        self.at = found.end()
        return found[0]

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self._ends, at) + 1)

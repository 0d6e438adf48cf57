"""Where in a TOML text a key stands."""

from __future__ import annotations

import tomllib
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.errors import Invalid
from vxagent.protocol.shape import Path
from vxagent.runtime.toml_text import TomlText, lines_of


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1", ("a",), 1),
        ("\n# [no]\na = 1", ("a",), 3),
        ("a = 1\r\nb = 2\r\n", ("b",), 2),
        ("[t]\na = 1", ("t", "a"), 2),
        ("[t]\n[t.u]\na = 1", ("t", "u", "a"), 3),
        ("[a.b.c]", ("a", "b"), 1),
        ("a.b.c = 1", ("a", "b"), 1),
        ("\"a b\".'c.d' = 1", ("a b", "c.d"), 1),
        ('"\\u0061" = 1', ("a",), 1),
        ("[ 'x' . \"y\" ]\nz=1", ("x", "y", "z"), 2),
        ("[[t]]\na = 1\n[[t]]\na = 2", ("t", 1, "a"), 4),
        ("[[t]]\n[[t]]\n[t.u]\na = 2", ("t", 1, "u", "a"), 4),
        ("[[t]]\n[[t.u]]\n[[t.u]]\na = 2\n[[t]]\n[[t.u]]\nb = 1", ("t", 1, "u", 0, "b"), 7),
        ("[[t]]\n[[t.u]]\n[[t.u]]\na = 2", ("t", 0, "u", 1, "a"), 4),
        ("a = [\n 1, # one\n\n 2,\n]\nb = 1", ("a", 1), 4),
        ("a = [\n 1,\n]\nb = 1", ("b",), 4),
        ('a = ["]", \'[\', """\n]\n""",\n 3]', ("a", 3), 4),
        ("a = [[1,\n2],\n[3]]", ("a", 1, 0), 3),
        ("a = {b = 1, c = [\n1,\n2]}", ("a", "c", 1), 3),
        ("a = [{b = 1},\n{b = 2}]", ("a", 1, "b"), 2),
        ('a = """\nb = 1\n"""\nb = 2', ("b",), 4),
        ('a = """"quoted""""\nb = 2', ("b",), 2),
        ("a = '''\n'b' = ''1'' '''\nb = 2", ("b",), 3),
        ('a = "\\"#"\nb = 2', ("b",), 2),
        ('a = "\\\\"\nb = 2', ("b",), 2),
        ('a = """\\\n  x\\""" \n"""\nb = 2', ("b",), 4),
        ("a = 1979-05-27 07:32:00 # date\nb = 2", ("b",), 2),
        ("a = inf\nb = 0x1_0\nc = 1e-3", ("c",), 3),
        ("-_1 = 2\n1 = 3", ("1",), 2),
    ],
)
def test_a_key_is_found_at_its_line(text: str, path: Path, line: int) -> None:
    value: Any = tomllib.loads(text)
    for step in path:
        value = value[step]
    assert lines_of(text)[path] == line


@pytest.mark.parametrize(
    ("path", "line"), [(("t", 0, "missing"), 2), (("t", 0, "a", 7), 3), (("elsewhere",), 1), ((), 1)]
)
def test_what_is_missing_is_looked_for_above(path: Path, line: int) -> None:
    assert TomlText("\n[[t]]\na = [1]", "f").line(path) == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb\nc = 2", "f.toml:2: not TOML: expected '=' after a key in a key/value pair"),
        ("a = 1\na = 2", "f.toml:2: not TOML: cannot overwrite a value"),
        ("a = [1,\n", "f.toml:1: not TOML: invalid value"),
        ('a = """\n\n', "f.toml:2: not TOML: unterminated string"),
        ("a = " + "9" * 5000, "f.toml:1: not TOML: exceeds the limit"),
        ("a = " + "[" * 100_000, "f.toml:1: not TOML:"),
        ("a = 2026-13-01", "f.toml:1: not TOML:"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        TomlText(text, "f.toml")
    assert str(refused.value).startswith(message)


# --- any document --------------------------------------------------------------------------------


BLANKS = st.sampled_from(["", " ", "\t", "  "])
BREAKS = st.sampled_from(["", "\n", " # ] } \" ' [[x]]\n", "\n\n\t", "\r\n"])
SCALARS = st.sampled_from([
    "1", "-1.5e3", "true", "1979-05-27 07:32:00", '"a # ] \\" b"', "'[\"'", '"""x\n] = """', "'''\n[[t]]'''",
    '""', "''", '"""a""b"""', '""""two"" """', '"\\\\"',
])  # fmt: skip
KEYS = (("k{}", "k{}"), ('"k.{}"', "k.{}"), ("'k]={}'", "k]={}"), ('"\\u006b{}"', "k{}"))  # written, meant


class Writer:
    """Writes any valid document and remembers on which line each thing begins."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.text = ""
        self.lines: dict[Path, int] = {}
        self._draw = draw
        self._numbers = count()
        self._arrays: dict[str, int] = {}  # arrays of tables → tables so far

    def document(self) -> None:
        table: Path = ()
        for _ in range(self._draw(st.integers(0, 8))):
            if self._draw(st.booleans()):
                table = self._header()
            else:
                self._pair(table, 2)
            self._add(BLANKS)
            self._add(st.sampled_from(["\n", "\r\n", " # x = 1\n", "\n\n"]))

    def _add(self, text: str | st.SearchStrategy[str]) -> None:
        self.text += text if isinstance(text, str) else self._draw(text)

    def _note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def _key(self) -> tuple[str, str]:
        written, meant = self._draw(st.sampled_from(KEYS))
        number = next(self._numbers)
        return written.format(number), meant.format(number)

    def _header(self) -> Path:
        written, meant = self._key()
        array = self._draw(st.booleans())
        if array and self._arrays and self._draw(st.booleans()):
            meant = self._draw(st.sampled_from(sorted(self._arrays)))
            written = f"'{meant}'"
        path: Path = (meant,)
        self._note(path)
        if array:
            path = (meant, self._arrays.get(meant, 0))
            self._arrays[meant] = self._arrays.get(meant, 0) + 1
            self._note(path)
        blank = self._draw(BLANKS)
        self._add(f"[[{blank}{written}{blank}]]" if array else f"[{blank}{written}{blank}]")
        return path

    def _pair(self, table: Path, depth: int) -> None:
        path = table
        for step in range(self._draw(st.integers(1, 2))):
            written, meant = self._key()
            path = (*path, meant)
            self._note(path)
            self._add(f".{self._draw(BLANKS)}" if step else "")
            self._add(written + self._draw(BLANKS))
        self._add("=" + self._draw(BLANKS))
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        match self._draw(st.sampled_from(["scalar", "array", "table"] if depth else ["scalar"])):
            case "array":
                self._add("[")
                for index in range(self._draw(st.integers(0, 3))):
                    self._add(BREAKS)
                    self._note((*path, index))
                    self._value((*path, index), depth - 1)
                    self._add(self._draw(BREAKS) + ",")
                self._add(self._draw(BREAKS) + "]")
            case "table":
                self._add("{")
                for index in range(self._draw(st.integers(0, 3))):
                    self._add(", " if index else " ")
                    self._pair(path, depth - 1)
                self._add("}")
            case _:
                self._add(SCALARS)


@st.composite
def documents(draw: st.DrawFn) -> Writer:
    """Documents with tables, arrays of tables, dotted and quoted keys, nested values and comments."""
    writer = Writer(draw)
    writer.document()
    return writer


def paths_of(value: object, path: Path = ()) -> set[Path]:
    """The path of everything in a parsed document."""
    inner: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return {p for step, part in inner for p in ((*path, step), *paths_of(part, (*path, step)))}


@given(documents())
def test_every_key_of_any_document_is_found_where_it_was_written(document: Writer) -> None:
    assert lines_of(document.text) == document.lines
    assert set(document.lines) == paths_of(tomllib.loads(document.text))

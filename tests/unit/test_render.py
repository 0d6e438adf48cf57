"""How answers look to people."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest

from vxagent_cli.render import RICH_ROWS, Column, cell, changes, column, duration, one_line, sheet, table

COLUMNS = (column("id"), column("segments", "in"), column("rx", number=True), Column("up", lambda row: cell(row["up"])))
BLUE = {"segment": "blue", "vid": 10}
ROWS = [
    {"id": "tap0", "segments": [{"segment": "blue", "vid": None}], "rx": 7, "up": True},
    {"id": "a-long-name", "segments": [BLUE, {"segment": "red", "vid": 20}], "rx": 12345, "up": False},
    {"id": "tap2", "segments": [], "rx": 0, "up": None},
]  # fmt: skip


COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Terminal(io.StringIO):
    """Text that goes to a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_into_a_pipe_is_plain_aligned_columns() -> None:
    out = io.StringIO()
    table(COLUMNS, [ROWS], out)
    assert out.getvalue() == (
        "ID           IN                 RX  UP\n"
        "tap0         blue                7  yes\n"
        "a-long-name  blue:10,red:20  12345  no\n"
        "tap2         -                   0  -\n"
    )


def test_an_empty_table_is_its_head() -> None:
    out = io.StringIO()
    table(COLUMNS, [], out)
    assert out.getvalue() == "ID  IN  RX  UP\n"


def test_a_table_at_a_terminal_shows_the_same_cells() -> None:
    out = Terminal()
    table(COLUMNS, [ROWS[:2], ROWS[2:]], out)
    lines = [line.split() for line in COLOUR.sub("", out.getvalue()).splitlines()]
    assert lines[0] == ["id", "in", "rx", "up"]
    assert ["a-long-name", "blue:10,red:20", "12345", "no"] in lines


def test_markup_in_a_cell_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    table((column("id"),), [[{"id": "[red]x[/red]"}]], out)
    assert "[red]x[/red]" in out.getvalue()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_long_table_is_plain_and_is_never_held_as_a_whole(out: io.StringIO) -> None:
    taken = 0

    def batches() -> Iterator[list[dict[str, Any]]]:
        nonlocal taken
        for n in range(100):
            taken = n
            yield [{"id": f"{n}-{row}"} for row in range(100)]
            assert len(out.getvalue()) > 0 or n < 20, "nothing is printed while rows come"

    assert RICH_ROWS < 10_000
    table((column("id"),), batches(), out)
    assert taken == 99
    assert out.getvalue().splitlines()[0] == "ID"
    assert out.getvalue().splitlines()[-1] == "99-99"


def test_a_sheet_has_a_line_for_each_key_also_of_a_dict() -> None:
    out = io.StringIO()
    sheet([("id", "tap0"), ("macs", []), ("verdicts", {"forwarded": 3, "flooded": 1}), ("drops", {})], out)
    assert out.getvalue() == (
        "id                  tap0\n"
        "macs                -\n"
        "verdicts forwarded  3\n"
        "verdicts flooded    1\n"
        "drops               -\n"
    )


def test_changes_are_signed_lines() -> None:
    out = io.StringIO()
    found = [
        {"action": "delete", "kind": "port", "name": "tap0", "what": []},
        {"action": "add", "kind": "segment", "name": "blue", "what": []},
        {"action": "set", "kind": "segment", "name": "red", "what": ["mtu 1500 -> 9000", "vlan none -> 10"]},
    ]
    changes(found, out)
    assert out.getvalue() == (
        "- port tap0\n"
        "+ segment blue\n"
        "~ segment red: mtu 1500 -> 9000, vlan none -> 10\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), (True, "yes"), (False, "no"), (0, "0"), ("x", "x"), (["a", "b"], "a,b"),
        ({"segment": "blue", "vid": None}, "blue"), (BLUE, "blue:10"), ({"a": 1, "b": 2}, "a=1 b=2"),
    ],
)  # fmt: skip
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86399, "23h59m"), (100_000, "1d03h")],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_is_one_line_and_no_terminal_obeys_it() -> None:
    assert one_line("a\nb\x1b[31m\tc") == "a b\\x1b[31m c"

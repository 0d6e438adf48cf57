"""How things look to people: tables, sheets of one object, lists of changes.

At a terminal a short table is drawn by rich; everything else is plain columns, which scripts can cut and which
stay fast and small however long the list is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TextIO

Object = dict[str, Any]
Row = tuple[str, ...]

RICH_ROWS = 200  # beyond them a table at a terminal is plain too
WIDTH_SAMPLE = 1000  # rows that decide how wide plain columns are
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: its head.
        text: an object's cell.
        number: it is aligned to the right.
    """

    title: str
    text: Callable[[Object], str]
    number: bool = False


def column(key: str, title: str = "", *, number: bool = False) -> Column:
    """A column that shows a key; without a title it is headed by the key."""
    return Column(title or key, lambda row: cell(row[key]), number)


def cell(value: Any) -> str:
    """A value as people read it: nothing is `-`, a list is joined by commas, a segment is `blue` or `blue:10`."""
    match value:
        case None | "" | []:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(map(cell, value))
        case {"segment": segment, "vid": vid}:
            return segment if vid is None else f"{segment}:{vid}"
        case dict():
            return " ".join(f"{key}={cell(number)}" for key, number in value.items()) or NOTHING
    return str(value)


def table(columns: Sequence[Column], batches: Iterable[list[Object]], out: TextIO | None = None) -> None:
    """Print a table. Rows are taken batch by batch; a list of any length is never held as a whole."""
    out = out or sys.stdout
    rows: Iterator[Row] = (tuple(c.text(row) for c in columns) for batch in batches for row in batch)
    if out.isatty():
        first = list(islice(rows, RICH_ROWS + 1))
        if len(first) <= RICH_ROWS:
            _rich_table(columns, first, out)
            return
        rows = chain(first, rows)
    _plain_table(columns, rows, out)


def sheet(pairs: Iterable[tuple[str, Any]], out: TextIO | None = None) -> None:
    """Print one object as lines of name and value; a value that is a dict is a line for each of its keys."""
    out = out or sys.stdout
    lines = list(_sheet_lines(pairs))
    width = max((len(name) for name, _ in lines), default=0)
    out.writelines(f"{name:<{width}}  {text}\n" for name, text in lines)


def changes(found: Iterable[Object], out: TextIO | None = None) -> None:
    """Print what `apply` did or would do, one object a line."""
    out = out or sys.stdout
    signs = {"add": "+", "set": "~", "delete": "-"}
    for change in found:
        what = f": {', '.join(change['what'])}" if change["what"] else ""
        out.write(f"{signs.get(change['action'], '?')} {change['kind']} {change['name']}{what}\n")


def one_line(text: str) -> str:
    """The text without line breaks, and without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def duration(seconds: int) -> str:
    """Seconds as people read them: `42s`, `3m07s`, `5h02m`, `12d04h`."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{h}h{m:02}m"
    return f"{m}m{s:02}s" if minutes else f"{s}s"


def _sheet_lines(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if isinstance(value, dict) and value:
            yield from ((f"{name} {key}", cell(inner)) for key, inner in value.items())
        else:
            yield name, cell(value) if value != {} else NOTHING


def _plain_table(columns: Sequence[Column], rows: Iterator[Row], out: TextIO) -> None:
    """Columns as wide as the first rows need; a later row that is wider shifts its own line only."""
    heads = tuple(c.title.upper() for c in columns)
    first = list(islice(rows, WIDTH_SAMPLE))
    widths = [max(map(len, texts)) for texts in zip(heads, *first, strict=True)]
    form = "  ".join(f"{{:{'>' if c.number else '<'}{width}}}" for c, width in zip(columns, widths, strict=True))
    for row in chain([heads], first, rows):
        out.write(form.format(*row).rstrip() + "\n")


def _rich_table(columns: Sequence[Column], rows: list[Row], out: TextIO) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  # 50 ms that only terminals pay
    from rich.console import Console  # noqa: PLC0415  # slow to import
    from rich.table import Table  # noqa: PLC0415  # slow to import
    from rich.text import Text  # noqa: PLC0415  # slow to import

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for c in columns:
        drawn.add_column(c.title, justify="right" if c.number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(file=out).print(drawn)

"""What the pages name is there: files and sections that they link, files of this tree that they point to, options and
targets of make that they promise, keys of JSON that they list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vxagent.protocol import answers
from vxagent.protocol.requests import Desired
from vxagent_cli.app import app

TREE = Path(__file__).parents[2]
PAGES = [
    *TREE.glob("*.md"),
    *TREE.glob("docs/**/*.md"),
    *(TREE / f"{of}/README.md" for of in ("agent", "bpf", "tests/vm")),
]

_LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FILE = re.compile(r"`((?:[\w-]+/)*[\w.-]+\.(?:py|[ch]))`")
_FILES = [str(file) for of in ("agent", "bpf", "cli", "tests") for file in (TREE / of).rglob("*.[pch]*")]
_MAKE = re.compile(r"(?:`|^ {4}|sudo )make ([a-z-]+)", re.MULTILINE)
_RULE = re.compile(r"^([a-z][a-z -]*):", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+[a-z]")
_OTHERS = {"--unix-socket", "--now", "--create", "--auto-compaction-retention", "--max-txn-ops"}
"""Options of other programs that the pages speak of."""

_KEYS = re.compile(r"^\| ((?:`[a-z ]+`(?:, )?)+) \| `([a-z_ ]+)`", re.MULTILINE)
ANSWERS = {
    "status": answers.StatusView,
    "segment list": answers.SegmentView,
    "port list": answers.PortView,
    "uplink list": answers.UplinkView,
    "vtep list": answers.VtepView,
    "fdb list": answers.FdbView,
    "host list": answers.HostView,
    "binding list": answers.BindingView,
    "migrate status": answers.MigrationView,
    "drops": answers.DropView,
    "doctor": answers.FindingView,
    "apply": answers.ChangeView,
    "diff": answers.ChangeView,
    "export": Desired,
}
SHOWN = {"segment show", "port show"}
"""Commands that have more keys than a table has room for."""


@pytest.fixture(params=PAGES, ids=[str(page.relative_to(TREE)) for page in PAGES])
def page(request: pytest.FixtureRequest) -> Path:
    """One page after the other."""
    found: Path = request.param
    return found


def anchors(page: Path) -> Iterator[str]:
    """By which its sections are linked, as GitHub makes them of headings."""
    seen: Counter[str] = Counter()
    for heading in _HEADING.findall(_FENCED.sub("", page.read_text())):
        name = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        yield f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1


def is_there(page: Path, link: str, anchor: str) -> bool:
    """Whether a page's link leads to a file, and to a section of it if it says so."""
    target = page.parent / link if link else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_a_link_leads_somewhere(page: Path) -> None:
    assert [link for link in _LINK.findall(page.read_text()) if not is_there(page, *link)] == []


def test_a_file_that_is_pointed_to_is_there(page: Path) -> None:
    """Pages name as much of its path as tells it apart."""
    named = _FILE.findall(page.read_text())
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in _FILES)] == []


def test_a_target_of_make_that_is_promised_exists(page: Path) -> None:
    rules = {name for rule in _RULE.findall((TREE / "Makefile").read_text()) for name in rule.split()}
    assert set(_MAKE.findall(page.read_text())) <= rules


def commands(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """A command and its subcommands, by what is typed after `vxagent`."""
    yield " ".join(words), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *words, name)


COMMANDS = dict(commands(typer.main.get_command(app)))
KNOWN = {
    option
    for command in COMMANDS.values()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
} | {"--help"}


def test_an_option_that_is_promised_exists(page: Path) -> None:
    assert set(_OPTION.findall(page.read_text())) <= KNOWN | _OTHERS


def test_the_keys_of_json_are_those_of_the_answers() -> None:
    rows = _KEYS.findall((TREE / "docs/commands.md").read_text())
    listed = {name: keys.split() for names, keys in rows for name in re.findall(r"`(.+?)`", names)}
    assert listed == {name: list(answer.__struct_fields__) for name, answer in ANSWERS.items()}


def test_every_command_with_json_is_listed() -> None:
    with_json = {
        name for name, command in COMMANDS.items() if any("--json" in p.opts and p.is_flag for p in command.params)
    }
    assert with_json == ANSWERS.keys() | SHOWN

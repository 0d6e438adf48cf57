"""What the pages name is there: files that they link, tests that they point to, options that they promise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vxagent_cli.app import app

TREE = Path(__file__).parents[2]
PAGES = [*TREE.glob("*.md"), *TREE.glob("docs/**/*.md"), TREE / "bpf/README.md", TREE / "agent/README.md"]

_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_TEST = re.compile(r"`((?:bpf|cluster|netns|unit)/test_\w+\.py)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+[a-z]")
_OTHERS = {"--unix-socket", "--now", "--create", "--auto-compaction-retention", "--max-txn-ops"}
"""Options of other programs that the pages speak of."""


@pytest.fixture(params=PAGES, ids=[str(page.relative_to(TREE)) for page in PAGES])
def page(request: pytest.FixtureRequest) -> Path:
    """One page after the other."""
    found: Path = request.param
    return found


def test_a_link_leads_somewhere(page: Path) -> None:
    assert [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


def test_a_test_that_is_pointed_to_is_there(page: Path) -> None:
    assert [test for test in _TEST.findall(page.read_text()) if not (TREE / "tests" / test).is_file()] == []


def options(command: Any) -> Iterator[str]:
    """All options of a command and its subcommands."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


KNOWN = frozenset(options(typer.main.get_command(app))) | {"--help"}


def test_an_option_that_is_promised_exists(page: Path) -> None:
    assert set(_OPTION.findall(page.read_text())) <= KNOWN | _OTHERS

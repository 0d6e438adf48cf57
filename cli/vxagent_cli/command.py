"""What the commands share: the agent to ask, options, and the ways to print an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vxagent_cli import render
from vxagent_cli.client import Client

AsJson = Annotated[bool, typer.Option("--json", "-j", help="Print JSON on stdout instead of a table.")]


class WrongUsage(typer.TyperException):
    """The command line contradicts itself, or lacks something."""

    exit_code = 2


def group(does: str) -> typer.Typer:
    """A group of commands such as `vxagent port …`."""
    return typer.Typer(help=does, rich_markup_mode=None, add_completion=False)


def agent(ctx: typer.Context) -> Client:
    """The agent that --run-dir names."""
    return Client(run_dir(ctx))


def run_dir(ctx: typer.Context) -> Path:
    """The run dir."""
    path: Path = ctx.obj
    return path


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def cleared(changes: dict[str, Any], **clear: bool) -> dict[str, Any]:
    """The changes of a `set` with what its `--no-…` options clear: a list to [], anything else to null.

    Raises:
        WrongUsage: an option is set and cleared at once, or nothing is left to set.
    """
    for name, wanted in clear.items():
        if wanted and name in changes:
            option = name.replace("_", "-")
            raise WrongUsage(f"--{option} and --no-{option} contradict each other")
        if wanted:
            changes[name] = [] if name in ("mac", "ip") else None
    if not changes:
        raise WrongUsage("nothing to set: give at least one option")
    return changes


def show_list(
    ctx: typer.Context, columns: Sequence[render.Column], *path: str, as_json: bool, **query: str | None
) -> None:
    """Print a list: as the agent writes it, or as a table."""
    if as_json:
        for chunk in agent(ctx).raw(*path, **query):
            sys.stdout.buffer.write(chunk)
    else:
        render.table(columns, agent(ctx).rows(*path, **query))


def show_object(ctx: typer.Context, *path: str, as_json: bool) -> None:
    """Print one object: as the agent writes it, or as a sheet."""
    if as_json:
        show_list(ctx, (), *path, as_json=True)
    else:
        render.sheet(agent(ctx).get(*path).items())


def show_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value))


def say(answer: Mapping[str, Any], done: str, already: str = "") -> None:
    """Print what a change came to.

    Args:
        answer: the agent's.
        done: what to say when something changed.
        already: what to say when things were so already.
    """
    note = f"; {answer['note']}" if answer.get("note") else ""
    print(render.one_line((done if answer.get("changed", True) else already) + note))
    warn(answer)


def warn(answer: Mapping[str, Any]) -> None:
    """Print the warnings of an answer on stderr, a line each."""
    for warning in answer.get("warnings", ()):
        print(f"vxagent: warning: {render.one_line(warning)}", file=sys.stderr)

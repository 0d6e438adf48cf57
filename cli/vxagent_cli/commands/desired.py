"""Desired state as one TOML document: `vxagent apply`, `diff`, `export`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vxagent.errors import HostError
from vxagent_cli.command import AsJson, agent, show_json, warn
from vxagent_cli.render import changes

File = Annotated[Path, typer.Argument(metavar="FILE", help="The document; - is stdin.")]
Prune = Annotated[bool, typer.Option("--prune", help="Remove also what no apply made.")]


def apply(ctx: typer.Context, file: File, prune: Prune = False, as_json: AsJson = False) -> None:
    """Make the desired state that of a document, all or nothing; print what changed."""
    _compare(ctx, "apply", file, prune, as_json, "nothing to change")


def diff(ctx: typer.Context, file: File, prune: Prune = False, as_json: AsJson = False) -> None:
    """Print what apply would change."""
    _compare(ctx, "diff", file, prune, as_json, "no difference")


def export(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print the desired state as a document that apply takes."""
    for chunk in agent(ctx).raw("v1", "export", form="json" if as_json else "toml"):
        sys.stdout.buffer.write(chunk)


def _compare(ctx: typer.Context, how: str, file: Path, prune: bool, as_json: bool, nothing: str) -> None:
    text, name = _read(file)
    answer = agent(ctx).change("POST", "v1", how, body={"text": text, "file": name, "prune": prune})
    if as_json:
        show_json(answer["changes"])
    elif answer["changes"]:
        changes(answer["changes"])
    else:
        print(nothing)
    warn(answer)


def _read(file: Path) -> tuple[str, str]:
    """The text, and what messages call it. Raises HostError."""
    name = "stdin" if file == Path("-") else str(file)
    try:
        content = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
        return content.decode(), name
    except OSError as exc:
        raise HostError(f"{name} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise HostError(f"{name}:{line}: not UTF-8 text") from exc

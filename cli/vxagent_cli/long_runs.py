"""What takes minutes: where it is, and what it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vxagent_cli.render import Object

if TYPE_CHECKING:
    from vxagent.bench.run import Step


@contextmanager
def progress() -> Iterator[Callable[[Step], None]]:
    """A bar on stderr where that is a terminal, otherwise a line for each step."""
    if not sys.stderr.isatty():
        yield lambda step: print(f"{step.case}: {step.doing}", file=sys.stderr, flush=True)
        return
    from rich.console import Console  # noqa: PLC0415  # slow to import
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  # slow to import

    shown = (TextColumn("{task.description:<36}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("setting up", total=None)

        def tell(step: Step) -> None:
            bar.update(task, description=f"{step.case}: {step.doing}", completed=step.done, total=step.total)

        yield tell


def give(document: Object, json_file: Path | None, show: Callable[[], None]) -> None:
    """Print the table below a line that says where it was measured, or the document; write that to a file, too.

    Args:
        document: has `machine` and `kernel`.
        json_file: - is stdout, and no table then.
        show: prints the table.
    """
    text = json.dumps(document, indent=2)
    if json_file == Path("-"):
        print(text)
        return
    print(f"{document['machine']}, Linux {document['kernel']}")
    show()
    if json_file is not None:
        json_file.write_text(text + "\n")

"""A process dies after the step that it is told, and counts nothing unless it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vxagent.steps import DIE_AFTER

STEPS = """
from vxagent import steps
for n in range(1, 6):
    print(n, flush=True)
    steps.taken()
"""


def walk(file: Path) -> subprocess.CompletedProcess[str]:
    """Take five steps."""
    environment = {**os.environ, DIE_AFTER: str(file)}
    return subprocess.run(
        (sys.executable, "-c", STEPS), env=environment, stdout=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.parametrize("after", [1, 3, 5])
def test_the_process_kills_itself_right_after_that_step(tmp_path: Path, after: int) -> None:
    file = tmp_path / "die-after"
    file.write_text(str(after))
    done = walk(file)
    assert (len(done.stdout.split()), done.returncode) == (after, -signal.SIGKILL)


def test_what_is_left_says_how_many_steps_there_were(tmp_path: Path) -> None:
    file = tmp_path / "die-after"
    file.write_text("100")
    assert walk(file).returncode == 0
    assert file.read_text() == "95"


def test_without_a_file_nobody_dies(tmp_path: Path) -> None:
    assert walk(tmp_path / "absent").returncode == 0

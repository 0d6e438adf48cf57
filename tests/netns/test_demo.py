"""`make demo` keeps its word: it ends well, and leaves nothing behind even when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vxagent.lab.namespaces import DIRECTORY

COMMAND = [sys.executable, "-u", "-m", "vxagent.lab.demo"]
NOTHING = "✓ no namespace, mount, directory or process is left"


def left_by(pid: int) -> list[str]:
    """What is there under the names that a world of this process has."""
    places = (DIRECTORY, Path(tempfile.gettempdir()))
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"/vx-{pid}-" in line]
    return [str(path) for place in places for path in place.glob(f"vx-{pid}-*")] + mounts


@pytest.mark.timeout(60)
def test_all_is_as_expected_within_a_minute() -> None:
    demo = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told, _ = demo.communicate()
    assert demo.returncode == 0, told
    assert "✗" not in told
    assert NOTHING in told
    assert "\033" not in told  # colours are for terminals
    assert left_by(demo.pid) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["vxagent up", "blue1 → blue2"])
def test_an_interrupted_demo_leaves_nothing_behind(ending: signal.Signals, after: str) -> None:
    demo = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
    assert demo.stdout is not None
    while after not in (line := demo.stdout.readline()):
        assert line, "it ended by itself"
    os.killpg(demo.pid, ending)  # as a terminal does: to all of the foreground
    told, _ = demo.communicate(timeout=30)
    assert demo.returncode == 128 + ending
    assert f"Interrupted ({ending.name})" in told
    assert NOTHING in told
    assert left_by(demo.pid) == []

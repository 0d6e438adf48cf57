"""`make demo` and `make demo-cluster` keep their word: they end well, and leave nothing behind when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vxagent.lab.namespaces import DIRECTORY

DEMO, CLUSTER = ([sys.executable, "-u", "-m", f"vxagent.lab.{name}"] for name in ("demo", "demo_cluster"))
NOTHING = "✓ no namespace, mount, directory or process is left"


def left_by(pid: int) -> list[str]:
    """What is there under the names that a world of this process has."""
    places = (DIRECTORY, Path(tempfile.gettempdir()))
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"/vx-{pid}-" in line]
    return [str(path) for place in places for path in place.glob(f"vx-{pid}-*")] + mounts


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [DEMO, CLUSTER], ids=["demo", "demo-cluster"])
def test_all_is_as_expected_within_a_minute(command: list[str]) -> None:
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told, _ = demo.communicate()
    assert demo.returncode == 0, told
    assert "✗" not in told
    assert NOTHING in told
    assert "\033" not in told  # colours are for terminals
    assert left_by(demo.pid) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "after"),
    [
        (DEMO, "vxagent up"),
        (DEMO, "blue1 → blue2"),
        (CLUSTER, "with one engine"),
        (CLUSTER, "migrate prepare"),
    ],
    ids=["demo, up", "demo, pings", "demo-cluster, up", "demo-cluster, migrate"],
)
def test_an_interrupted_demo_leaves_nothing_behind(ending: signal.Signals, command: list[str], after: str) -> None:
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
    assert demo.stdout is not None
    while after not in (line := demo.stdout.readline()):
        assert line, "it ended by itself"
    os.killpg(demo.pid, ending)  # as a terminal does: to all of the foreground
    told, _ = demo.communicate(timeout=30)
    assert demo.returncode == 128 + ending
    assert f"Interrupted ({ending.name})" in told
    assert NOTHING in told
    assert left_by(demo.pid) == []

"""The unit that systemd runs: right in itself, and as little exposed as it promises. systemd itself judges both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vxagent.datapath.bpf import missing_capabilities

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
UNIT = UNITS / "vxagent.service"
EXPOSURE_MAX = 30  # tenths


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_the_unit_is_understood_in_every_line(tmp_path: Path) -> None:
    """Where vxagent is not installed, this Python stands in for it: the command has to be there."""
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/usr/local/bin/vxagent", sys.executable))
    judged = _run("systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name))
    about_ours = [line for line in judged.stderr.splitlines() if UNIT.name in line]
    assert (judged.returncode, about_ours) == (0, [])


def test_the_unit_is_exposed_by_3_at_most() -> None:
    judged = _run(
        *("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(UNIT))
    )
    assert judged.returncode == 0, judged.stdout
    level = re.search(r"Overall exposure level for vxagent.service: ([0-9.]+)", judged.stdout)
    assert level is not None
    assert float(level[1]) <= EXPOSURE_MAX / 10


def test_a_unit_that_exposes_more_is_found_out(tmp_path: Path) -> None:
    """That the threshold is one."""
    lines = [line for line in UNIT.read_text().splitlines() if not line.startswith(("User=", "Protect", "System"))]
    (tmp_path / UNIT.name).write_text("\n".join(lines))
    judged = _run(
        *("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager"),
        str(tmp_path / UNIT.name),
    )
    assert judged.returncode != 0


def test_the_unit_gives_the_capabilities_that_the_agent_asks_for_and_no_other() -> None:
    settings = _settings()
    needed = set(missing_capabilities("CapEff:\t0000000000000000"))
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert set(" ".join(settings[name]).split()) == needed


def test_the_pins_are_made_by_the_host_and_bound_into_the_unit() -> None:
    settings = _settings()
    (bound,) = settings["BindPaths"]
    assert bound == "/sys/fs/bpf/vxagent"
    made = (UNITS / "vxagent.tmpfiles").read_text().splitlines()
    assert f"d {bound} 0700 vxagent vxagent -" in made
    assert not {"ExecStartPre", "ProtectKernelTunables"} & settings.keys()  # the unit says why not


@pytest.mark.parametrize(("tool", "file"), [("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")])
def test_user_and_directories_are_understood(tool: str, file: str, tmp_path: Path) -> None:
    """In an empty root, so that the machine's own users and directories play no part."""
    assert shutil.which(tool)
    users = UNITS / "vxagent.sysusers"
    (tmp_path / "etc").mkdir()
    make = {"systemd-sysusers": (), "systemd-tmpfiles": ("--create",)}[tool]
    ready = _run("systemd-sysusers", f"--root={tmp_path}", str(users))
    done = _run(tool, *make, f"--root={tmp_path}", str(UNITS / f"vxagent.{file}"))
    assert ready.returncode == 0
    if os.geteuid() == 0:  # nobody else may give a directory to a group
        assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^vxagent:.*:/var/lib/vxagent:/usr/sbin/nologin$", (tmp_path / "etc/passwd").read_text(), re.M)
    assert re.search(r"^vxagent:", (tmp_path / "etc/group").read_text(), re.M)
    if tool == "systemd-tmpfiles":
        assert (tmp_path / "etc/vxagent").stat().st_mode & 0o777 == 0o750

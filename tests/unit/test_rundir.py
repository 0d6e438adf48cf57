"""One run dir, one agent; what it was started with is remembered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vxagent.errors import HostError, Refused
from vxagent.runtime.rundir import DEFAULT_RUN_DIR, RunDir, Started, claim_state_dir

STARTED = Started(pid=7, version="1", netns=None, netns_id="net:[1]", state_dir="/s", config=None)


def test_the_second_agent_is_told_of_the_first(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "deep" / "run")
    run_dir.make()
    with run_dir.lock():
        with pytest.raises(Refused) as refused:
            RunDir(run_dir.path).lock()
        assert str(refused.value) == (
            f"an agent (pid {os.getpid()}) already runs with run dir {run_dir.path}; "
            f"`vxagent --run-dir {run_dir.path} stop` ends it"
        )
    with run_dir.lock():
        pass


def test_a_dead_agent_is_in_nobodys_way(tmp_path: Path) -> None:
    take = "import os, sys; from pathlib import Path; from vxagent.runtime.rundir import RunDir; "
    take += "RunDir(Path(sys.argv[1])).lock(); os.kill(os.getpid(), 9)"
    assert subprocess.run((sys.executable, "-c", take, tmp_path), check=False).returncode == -9
    with RunDir(tmp_path).lock():
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_state_dir_is_its_owners_alone_and_has_one_agent(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with claim_state_dir(state_dir):
        assert state_dir.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Refused, match=rf"already runs with state dir {state_dir}; give this one another"):
            claim_state_dir(state_dir)


def test_pins_are_in_the_run_dir_but_for_the_default_one(tmp_path: Path) -> None:
    assert RunDir(tmp_path).pins == tmp_path / "bpf"
    assert RunDir(DEFAULT_RUN_DIR).pins == Path("/sys/fs/bpf/vxagent")


def test_the_default_run_dir_is_known_by_another_path_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(DEFAULT_RUN_DIR.parent)
    assert RunDir(tmp_path / "link" / DEFAULT_RUN_DIR.name).pins == Path("/sys/fs/bpf/vxagent")


def test_what_was_started_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.recall() is None
    run_dir.remember(STARTED)
    assert run_dir.recall() == STARTED
    run_dir.forget()
    assert run_dir.recall() is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\xff"])
def test_what_is_not_readable_is_not_known(tmp_path: Path, content: str) -> None:
    (tmp_path / "agent.json").write_bytes(content.encode("latin-1"))
    assert RunDir(tmp_path).recall() is None


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=f"cannot make {tmp_path}/file/run"):
        RunDir(tmp_path / "file" / "run").make()

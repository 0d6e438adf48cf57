"""How an agent starts and ends as a process, who may start one, and what is said to those who may not.

   vm              vm
┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │     only where forwarding is looked at; otherwise the switch's namespace is empty
└──┬───┘       └──┬───┘
   vN             vN
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import vxagent
from support.lan import Lan, assert_connected
from support.nobody import AS_NOBODY
from vxagent.lab.agent import VXAGENT, Agent
from vxagent.lab.namespaces import CommandFailed, Namespace, run
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World
from vxagent.store.local import FILE
from vxagent_cli.client import Client


def up_words(agent: Agent) -> tuple[str, ...]:
    """The words of `up --detach` for this agent."""
    return ("up", "--detach", "--netns", agent.netns.name, "--state-dir", str(agent.state_dir))


def refused(agent: Agent, *words: str) -> str:
    """A command's one line on stderr; it must end with 1 and print nothing."""
    done = agent.cli(*words, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("vxagent: ").rstrip("\n")


# --- where, and in whose place ------------------------------------------------------------


def test_a_second_agent_is_refused_with_the_pid_of_the_first(agent: Agent) -> None:
    agent.up()
    pid = agent.pid
    said = refused(agent, "up", "--detach", "--netns", agent.netns.name, "--state-dir", f"{agent.state_dir}-2")
    end = f"`vxagent --run-dir {agent.run_dir} stop` ends it"
    assert said == f"an agent (pid {pid}) already runs with run dir {agent.run_dir}; {end}"
    assert agent.json("status")["pid"] == pid


def test_two_agents_do_not_share_a_state_dir(world: World, agent: Agent) -> None:
    agent.up()
    other = Agent(world.directory(), agent.netns)
    other.state_dir = agent.state_dir
    said = refused(other, *up_words(other))
    assert said.startswith(f"an agent (pid {agent.pid}) already runs with state dir {agent.state_dir}; ")
    assert agent.json("status")["ready"] is True


def test_a_namespace_may_be_given_by_its_path(world: World, switch: Namespace, agent: Agent) -> None:
    agent.cli("up", "--detach", "--netns", str(switch.path), "--state-dir", str(agent.state_dir))
    lan = Lan(world, switch, agent)
    lan.segment("blue")
    assert_connected(*lan.veths("blue", 2))


def test_a_namespace_that_is_not_there_is_named(agent: Agent) -> None:
    said = refused(agent, "up", "--detach", "--netns", "nowhere", "--state-dir", str(agent.state_dir))
    assert said.startswith("no network namespace at /run/netns/nowhere")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('metrics_listen = "192.0.2.1:9478"\n', "cannot listen at 192.0.2.1 port 9478 for metrics"),
        ("ageing_s = true\n", "{file}:1: ageing_s: must be a whole number, not true or false"),
        ('host = "hv1"\nageing = 3\n', "{file}:2: ageing: is not a known key"),
    ],
)
def test_a_config_that_is_wrong_ends_the_start_in_one_line(agent: Agent, config: str, says: str) -> None:
    agent.config_file.write_text(config)
    said = refused(agent, *up_words(agent), "--config", str(agent.config_file))
    assert said.startswith(says.format(file=agent.config_file))


# --- as which process, and as whom ------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        yield manager


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_the_agent_and_forwarding_goes_on(
    world: World, switch: Namespace, agent: Agent, manager: socket.socket, number: signal.Signals
) -> None:
    words = [word for word in up_words(agent) if word != "--detach"]
    started = subprocess.Popen(
        [VXAGENT, "--run-dir", str(agent.run_dir), *words],
        env={**os.environ, "NOTIFY_SOCKET": manager.getsockname()},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert manager.recv(100) == b"READY=1\nSTATUS=0 ports, 0 uplinks, 0 segments"
    assert agent.pid == started.pid
    lan = Lan(world, switch, agent)
    lan.segment("blue")
    a, b = lan.veths("blue", 2)
    started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert manager.recv(100) == b"STOPPING=1"
    assert started.returncode == 0
    assert "Traceback" not in said
    assert_connected(a, b)


def test_a_detached_agent_keeps_nothing_of_the_caller(agent: Agent) -> None:
    reading, writing = os.pipe()
    try:
        command = [VXAGENT, "--run-dir", str(agent.run_dir), *up_words(agent)]
        subprocess.run(command, stdout=writing, stderr=writing, pass_fds=(writing,), check=True, timeout=30)
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        assert pipe.read() == f"vxagent runs, pid {agent.pid}\n"  # and no more: nobody holds the other end
    assert os.readlink(f"/proc/{agent.pid}/cwd") == "/"
    assert os.getsid(agent.pid) != os.getsid(0)


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    return run(*AS_NOBODY, *command, check=False)


@pytest.fixture
def common(world: World) -> Path:
    """A directory that everybody may write to."""
    path = world.directory()
    path.chmod(0o777)
    return path


def test_who_is_not_root_gets_one_line(common: Path) -> None:
    done = as_nobody(VXAGENT, "--run-dir", f"{common}/run", "up", "--detach", "--state-dir", f"{common}/state")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vxagent: this process lacks CAP_")
    assert done.stderr.endswith("; run as root, or give it these capabilities\n")
    done = as_nobody(VXAGENT, "up", "--detach")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_who_is_not_root_may_not_ask_either(lan: Lan, common: Path) -> None:
    lan.agent.run_dir.parent.chmod(0o755)
    done = as_nobody(VXAGENT, "--run-dir", str(lan.agent.run_dir), "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"vxagent: the agent in {lan.agent.run_dir} cannot be asked: you are not in group root; use sudo\n"
    )


@pytest.mark.parametrize("missing", ["net_admin", "bpf"])
def test_a_root_without_a_capability_is_told_which(agent: Agent, missing: str) -> None:
    without = f"-{missing}" if missing != "bpf" else "-bpf,-sys_admin"
    done = run(
        *("setpriv", "--bounding-set", without, VXAGENT, "--run-dir", str(agent.run_dir)),
        *("up", "--detach", "--state-dir", str(agent.state_dir)),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("vxagent: this process lacks CAP_")
    assert f"CAP_{missing.upper()}" in done.stderr


@pytest.mark.parametrize(
    "words",
    ["status", "stop", "reload", "segment list", "port list", "port detach va", "fdb flush", "drops", "export"],
)
def test_without_an_agent_a_command_ends_with_3(agent: Agent, words: str) -> None:
    done = agent.cli(*words.split(), check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"vxagent: no agent answers in {agent.run_dir}; start one with `vxagent up`\n"


def test_metrics_are_served_where_the_caller_is(world: World, agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    agent.config_file.write_text(f'metrics_listen = "127.0.0.1:{number}"\n')
    agent.up()
    with socket.create_connection(("127.0.0.1", number)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"vxagent_build_info" in answer


def test_the_fdb_has_room_for_as_many_as_the_config_says(agent: Agent) -> None:
    for entries, changed_by in ((5000, "up"), (6000, "up"), (4000, "reload")):
        agent.config_file.write_text(f"fdb_entries = {entries}\n")
        if changed_by == "up":
            agent.up()
        else:
            agent.cli("reload")
        text = b"".join(Client(agent.run_dir).raw("metrics")).decode()
        assert f'vxagent_map_size{{map="fdb"}} {entries}.0\n' in text
        if entries == 5000:
            agent.cli("stop")


def test_a_switch_that_does_not_fit_leaves_nothing_and_says_what_makes_room(agent: Agent) -> None:
    agent.up()
    agent.cli("segment", "add", "blue", "--tenant", "acme")
    agent.cli("port", "attach", "va", "--segment", "blue", "--mac", "02:00:00:00:00:01", "--mac", "02:00:00:00:00:02")
    agent.cli("down")
    agent.config_file.write_text("fdb_entries = 1\n")
    with pytest.raises(CommandFailed, match=r"map fdb is full \(1 entries\); .* fdb_entries in vxagent.toml"):
        agent.up()
    assert not (agent.run_dir / "bpf").exists()
    agent.config_file.write_text("fdb_entries = 2\n")
    agent.up()


def test_a_hangup_reloads(lan: Lan) -> None:
    lan.agent.config_file.write_text("ageing_s = true\n")
    os.kill(lan.agent.pid, signal.SIGHUP)
    wait_until(lambda: "SIGHUP: " in lan.agent.log(), what="complaint about the config")
    assert lan.agent.json("status")["ready"]


def test_an_agent_of_a_single_host_has_nothing_of_the_clusters_client(agent: Agent) -> None:
    agent.up()
    mapped = Path(f"/proc/{agent.pid}/maps").read_text()
    assert "/msgspec/" in mapped  # what is imported is seen there
    assert "/grpc/" not in mapped
    assert "/google/" not in mapped


# --- the state database ------------------------------------------------------------


@pytest.fixture
def database(agent: Agent) -> Path:
    """That of an agent that has ended, with something in it."""
    agent.up()
    agent.cli("segment", "add", "blue", "--tenant", "acme")
    agent.cli("down")
    return agent.state_dir / FILE


@pytest.mark.parametrize("at", [0, 4096])  # the header, and the first page of the documents
def test_a_corrupt_state_database_is_refused_and_left_as_it_is(agent: Agent, database: Path, at: int) -> None:
    content = bytearray(database.read_bytes())
    content[at : at + 64] = b"\xa5" * 64
    database.write_bytes(content)
    said = refused(agent, *up_words(agent))
    assert said.startswith(f"the state database {database} is corrupt")
    assert database.read_bytes() == content


def test_a_newer_state_database_is_refused_and_left_as_it_is(agent: Agent, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[60:64] = (99).to_bytes(4, "big")  # user_version, https://www.sqlite.org/fileformat.html 1.3
    database.write_bytes(content)
    said = refused(agent, *up_words(agent))
    assert said.startswith(f"the state database {database} is of version 99, this vxagent knows 1; ")
    assert database.read_bytes() == content


# --- bytecode ------------------------------------------------------------


BCC = Path("/usr/lib/python3/dist-packages/bcc")


def without_bcc(agent: Agent) -> subprocess.CompletedProcess[str]:
    """`up` on a machine where python3-bpfcc is not installed."""
    hide = f'mount -t tmpfs none {BCC}; exec "$@"'
    words = (VXAGENT, "--run-dir", str(agent.run_dir), *up_words(agent))
    return run("unshare", "--mount", "--", "sh", "-ec", hide, "sh", *words, check=False)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is a copy of this tree without bytecode."""
    assert BCC.is_dir(), "make setup installs it"
    root = Path(vxagent.__file__).parents[2]
    for name in ("agent", "bpf", "cli"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("bytecode", "__pycache__"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/agent:{tmp_path}/cli")


@pytest.mark.usefixtures("tree")
def test_without_bytecode_and_without_bcc_it_says_what_to_install(agent: Agent) -> None:
    done = without_bcc(agent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vxagent: BCC is not installed; install BCC: apt-get install python3-bpfcc\n"
    assert not os.path.ismount(agent.run_dir / "bpf")


@pytest.mark.usefixtures("tree")
def test_what_was_compiled_once_serves_again(agent: Agent) -> None:
    agent.up()
    agent.cli("down")
    [compiled] = (agent.state_dir / "bytecode").iterdir()
    written = compiled.stat().st_mtime_ns
    agent.up()
    assert compiled.stat().st_mtime_ns == written


def test_shipped_bytecode_needs_no_bcc(agent: Agent) -> None:
    done = without_bcc(agent)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (agent.state_dir / "bytecode").exists()
    assert agent.json("status")["ready"] is True

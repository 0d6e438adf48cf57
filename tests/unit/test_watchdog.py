"""Signs of life for the service manager: given while the agent is alive, and only then."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import FakeHost
from vxagent.core.effects import Effect, FlushFdb
from vxagent.errors import HostError
from vxagent.runtime.executor import Executor
from vxagent.runtime.host import listen_unix
from vxagent.runtime.loop import Agent
from vxagent.runtime.serve import serve
from vxagent.runtime.watchdog import Progress, interval, watch

WAIT_S = 10


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_where_nothing_is_to_be_done_nothing_stalls() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now = 1000.0
    assert progress.stalled_s() == 0


def test_work_stalls_from_its_last_step_on() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now = 1000.0
    with progress.working():
        assert progress.stalled_s() == 0
        clock.now += 5
        assert progress.stalled_s() == 5
        progress.beat()
        assert progress.stalled_s() == 0
        clock.now += 7
        with progress.working():
            pass
        assert progress.stalled_s() == 0
        clock.now += 1
        assert progress.stalled_s() == 1
    clock.now += 100
    assert progress.stalled_s() == 0


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
    ids=["nobody waits", "never", "nonsense", "half of it", "for this process", "for another process"],
)
def test_signs_come_at_half_of_the_time_that_the_manager_waits(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert interval(environment) == seconds


def test_no_sign_is_given_while_work_hangs() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.stalls_after_s = 30
    signs: list[float] = []
    others: list[str] = []

    async def life() -> None:
        watching = asyncio.create_task(watch(progress, 0.001, lambda sign: signs.append(clock.now)))
        beside = asyncio.create_task(watch(Progress(clock), 0.001, others.append))
        with progress.working():
            while len(signs) < 3:
                await asyncio.sleep(0)
            clock.now = 30.5
            before, due = len(signs), len(others) + 10
            while len(others) < due:
                await asyncio.sleep(0)
            assert len(signs) == before
            progress.beat()
            while len(signs) == before:
                await asyncio.sleep(0)
        watching.cancel()
        beside.cancel()

    asyncio.run(asyncio.wait_for(life(), WAIT_S))
    assert set(signs) == {0.0, 30.5}


# --- an agent with a service manager -------------------------------------------------------------


class Manager:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(WAIT_S)

    def hear(self) -> dict[str, str]:
        """The next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def hear_but(self, *keys: str) -> dict[str, str]:
        """The next one without these keys."""
        heard = self.hear()
        while heard.keys() & set(keys):
            heard = self.hear()
        return heard

    def is_silent(self, seconds: float) -> bool:
        """Nothing comes for so long, once what has come already is heard."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                continue
        except BlockingIOError:
            self.socket.settimeout(seconds)
        try:
            self.socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(WAIT_S)
        return False


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """One that waits for signs of life, which come every 100 ms then; it has room for ten messages."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    manager = Manager(path)
    yield manager
    manager.socket.close()


class Served:
    """An agent over fakes in a thread, ended with the context."""

    def __init__(self, api: Path) -> None:
        self.host = FakeHost()
        self._api = api
        self.agent: Agent
        self.loop: asyncio.AbstractEventLoop
        self._made = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._made.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.agent.stop(), self.loop).result(WAIT_S)
        self._thread.join(WAIT_S)

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        # Signals belong to the main thread.
        self.loop.add_signal_handler = lambda *_: None  # type: ignore[method-assign]  # of this loop alone
        self.agent = self.host.agent()
        await serve(self.agent, lambda: listen_unix(self._api), None, self._made.set)


def test_a_manager_hears_of_the_start_of_life_of_a_reload_and_of_the_end(manager: Manager, tmp_path: Path) -> None:
    with Served(tmp_path / "api.sock") as served:
        assert manager.hear() == {"READY": "1", "STATUS": "0 ports, 0 uplinks, 0 segments"}
        assert manager.hear() == {"WATCHDOG": "1", "STATUS": "0 ports, 0 uplinks, 0 segments"}
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        asyncio.run_coroutine_threadsafe(served.agent.reload(), served.loop).result(WAIT_S)
        heard = manager.hear_but("WATCHDOG")
        assert heard["RELOADING"] == "1"
        assert int(heard["MONOTONIC_USEC"]) >= before
        assert manager.hear_but("WATCHDOG") == {"READY": "1"}
    assert manager.hear_but("WATCHDOG") == {"STOPPING": "1"}


def test_a_reload_that_fails_ends_for_the_manager_too(manager: Manager, tmp_path: Path) -> None:
    with Served(tmp_path / "api.sock") as served:
        served.host.datapath.broken["reload"] = HostError("the verifier refuses")
        with pytest.raises(HostError):
            asyncio.run_coroutine_threadsafe(served.agent.reload(), served.loop).result(WAIT_S)
        assert manager.hear_but("WATCHDOG", "STATUS")["RELOADING"] == "1"
        assert manager.hear_but("WATCHDOG", "STATUS") == {"READY": "1"}


def test_an_agent_whose_worker_hangs_is_silent_though_its_loop_runs(manager: Manager, tmp_path: Path) -> None:
    let_go = threading.Event()
    with Served(tmp_path / "api.sock") as served:
        assert "READY" in manager.hear()
        served.agent.progress.stalls_after_s = 0.3
        hanging = asyncio.run_coroutine_threadsafe(served.agent.act(let_go.wait), served.loop)
        while served.agent.progress.stalled_s() <= 0.5:
            time.sleep(0.01)
        assert manager.is_silent(0.5)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), served.loop).result(WAIT_S)
        let_go.set()
        assert hanging.result(WAIT_S)
        assert "WATCHDOG" in manager.hear()


def test_each_effect_of_a_long_change_is_a_sign_of_life() -> None:
    clock = Clock()
    host = FakeHost()
    executor = Executor(host.datapath, host.links, host.store)
    executor.progress = Progress(clock)
    stalls: list[float] = []

    def slow() -> Iterator[Effect]:
        for _ in range(3):
            clock.now += 20
            stalls.append(executor.progress.stalled_s())
            yield FlushFdb(segment=None, port=None)

    with executor.progress.working():
        executor.run(slow())
    assert stalls == [20, 20, 20]

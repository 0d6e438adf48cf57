"""The life of an agent's process, on the fakes: started, ready, asked, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vxagent.datapath.fake import FakeDatapath
from vxagent.errors import HostError
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime import serve as serving
from vxagent.runtime.config import Config
from vxagent.runtime.host import listen_tcp, listen_unix
from vxagent.runtime.loop import Agent
from vxagent.runtime.serve import serve
from vxagent.store.fake import FakeStore

CONFIG = Config(host="hv1")


def make_agent() -> Agent:
    return Agent(
        datapath=FakeDatapath(), links=FakeLinks(), store=FakeStore(), config=CONFIG, read_config=lambda: CONFIG
    )


def run(work: Callable[[Agent], Awaitable[None]], api: Path, metrics: socket.socket | None = None) -> Agent:
    """Serve an agent, do `work` when it is ready, and wait for its end."""

    async def life() -> Agent:
        agent = make_agent()
        is_ready = asyncio.Event()
        served = asyncio.create_task(serve(agent, lambda: listen_unix(api), metrics, is_ready.set))
        await asyncio.wait_for(is_ready.wait(), 10)
        await work(agent)
        await asyncio.wait_for(served, 10)
        return agent

    return asyncio.run(life())


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str) -> bytes:
    """The whole answer."""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_it_answers_until_somebody_stops_it_and_says_so(tmp_path: Path) -> None:
    api = tmp_path / "api.sock"

    async def work(agent: Agent) -> None:
        assert agent.ready
        assert b'"ready":true' in await ask(*await asyncio.open_unix_connection(api), "GET", "/v1/status")
        answer = await ask(*await asyncio.open_unix_connection(api), "POST", "/v1/stop")
        assert answer.startswith(b"HTTP/1.1 200")
        assert agent.ended.is_set()

    run(work, api)
    assert threading.active_count() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    async def work(_: Agent) -> None:
        os.kill(os.getpid(), number)

    agent = run(work, tmp_path / "api.sock")
    assert agent.ended.is_set()
    assert not agent.taken_off


def test_a_hangup_reloads(tmp_path: Path) -> None:
    async def work(agent: Agent) -> None:
        assert isinstance(agent.datapath, FakeDatapath)
        before = agent.datapath.reloads
        os.kill(os.getpid(), signal.SIGHUP)
        while agent.datapath.reloads == before:
            await asyncio.sleep(0.001)
        await agent.stop()

    run(work, tmp_path / "api.sock")


def test_metrics_have_a_socket_of_their_own_with_nothing_else(tmp_path: Path) -> None:
    listener = listen_tcp("127.0.0.1", 0)
    address = listener.getsockname()

    async def work(agent: Agent) -> None:
        assert b"vxagent_build_info" in await ask(*await asyncio.open_connection(*address), "GET", "/metrics")
        refused = await ask(*await asyncio.open_connection(*address), "POST", "/v1/stop")
        assert refused.startswith(b"HTTP/1.1 404")
        await agent.stop()

    run(work, tmp_path / "api.sock", listener)


def test_an_agent_that_cannot_listen_lets_go(tmp_path: Path) -> None:
    agents: list[Agent] = []

    async def life() -> None:
        agents.append(make_agent())
        await serve(agents[0], lambda: listen_unix(tmp_path / "absent" / "api.sock"), None, lambda: None)

    with pytest.raises(HostError, match="cannot listen at"):
        asyncio.run(life())
    assert agents[0].ended.is_set()


def test_an_agent_whose_server_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the server broke")

    monkeypatch.setattr(serving._HttpServer, "serve", broken)

    async def work(agent: Agent) -> None:
        await asyncio.wait_for(agent.ended.wait(), 10)

    with pytest.raises(RuntimeError, match="the server broke"):
        run(work, tmp_path / "api.sock")

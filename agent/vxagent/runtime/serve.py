"""The life of an agent's process: started, ready, ended by a signal or by its API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from vxagent.errors import VxagentError
from vxagent.runtime import watchdog
from vxagent.runtime.api import create_app
from vxagent.runtime.gate import Gate
from vxagent.runtime.host import tell_manager
from vxagent.runtime.loop import Agent
from vxagent.runtime.metrics import create_metrics_app
from vxagent.runtime.peers import App, PeerProtocol

log = logging.getLogger(__name__)

GRACE_S = 5
"""For requests that are being answered when the agent has ended."""


class _HttpServer(Server):
    """Serves one socket; signals are the agent's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    agent: Agent,
    listen: Callable[[], socket.socket],
    metrics: socket.socket | None,
    ready: Callable[[], None],
    *,
    gid: int | None = None,
) -> None:
    """Start the agent, answer requests until it has ended.

    Args:
        agent: not started yet.
        listen: makes the API's socket; called when there is something to answer.
        metrics: where metrics are served, or None.
        ready: called once the switch forwards and the API answers.
        gid: the group whose members may ask; None: its own.

    Raises:
        VxagentError: it did not start.
    """
    loop = asyncio.get_running_loop()
    asked: set[asyncio.Task[None]] = set()

    def on_signal(number: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = loop.create_task(_obey(number, work()))
        asked.add(task)
        task.add_done_callback(asked.discard)

    started = loop.create_task(agent.start())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, on_signal, signal.SIGHUP, agent.reload)
    await started
    try:
        with listen() as api:
            await _answer(agent, Gate(create_app(agent), os.getegid() if gid is None else gid), api, metrics, ready)
    finally:
        if not agent.ended.is_set():  # nobody can ask it any more
            await agent.stop()
    log.info("ended")


async def _answer(
    agent: Agent, app: App, api: socket.socket, metrics: socket.socket | None, ready: Callable[[], None]
) -> None:
    """Answer requests until the agent has ended, or a server cannot go on."""
    servers = [_serving(app, api, PeerProtocol)]
    if metrics is not None:
        servers.append(_serving(create_metrics_app(agent), metrics, H11Protocol))
    running = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
    ready()
    tell_manager(f"READY=1\nSTATUS={_status(agent)}")
    log.info("ready: %s", _status(agent))
    alive = asyncio.create_task(_be_alive(agent))
    ended = asyncio.create_task(agent.ended.wait())
    await asyncio.wait((ended, *running), return_when=asyncio.FIRST_COMPLETED)
    tell_manager("STOPPING=1")
    alive.cancel()
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    with suppress(asyncio.CancelledError):
        await alive


async def _be_alive(agent: Agent) -> None:
    """Give the service manager the signs of life that it waits for, if it does."""
    every = watchdog.interval()
    if every is not None:
        await watchdog.watch(agent.progress, every, lambda sign: tell_manager(f"{sign}\nSTATUS={_status(agent)}"))


def _status(agent: Agent) -> str:
    state = agent.switch.state
    return f"{len(state.ports)} ports, {len(state.uplinks)} uplinks, {len(state.segments)} segments"


def _serving(app: Any, sock: socket.socket, protocol: type[asyncio.Protocol]) -> tuple[Server, socket.socket]:
    config = Config(
        app,
        loop="asyncio",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return _HttpServer(config), sock


async def _obey(number: int, work: Coroutine[Any, Any, None]) -> None:
    log.info("%s", signal.Signals(number).name)
    try:
        await work
    except VxagentError as error:
        log.warning("%s: %s", signal.Signals(number).name, error)

"""Agents over fakes: the whole runtime without root, kernel or disk.

python -m support.agents RUN_DIR    such an agent in a process of its own, until it is told to end
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from uvicorn import Config as ServerConfig
from uvicorn import Server

from vxagent.core.switch import Draft
from vxagent.datapath.base import Drop, Learning
from vxagent.datapath.fake import FakeDatapath
from vxagent.model.device import Device
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.api import create_app
from vxagent.runtime.config import Config
from vxagent.runtime.gate import Gate
from vxagent.runtime.host import listen_unix
from vxagent.runtime.loop import Agent
from vxagent.runtime.peers import PeerProtocol
from vxagent.runtime.serve import serve
from vxagent.store.fake import FakeStore

T = TypeVar("T")

DEVICES = (
    Device(ifname="tap0", ifindex=10, kind="tun"),
    Device(ifname="tap1", ifindex=11, kind="tun"),
    Device(ifname="veth2", ifindex=12, kind="veth"),
    Device(ifname="eth1", ifindex=13),
)


class CountingDatapath(FakeDatapath):
    """Counters say what a test put into them.

    Attributes:
        dropped: all drop counters.
        learning_of: by port handle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[Drop] = []
        self.learning_of: dict[int, Learning] = {}
        self.suppressed: dict[int, int] = {}

    def drops(self) -> list[Drop]:
        """See Datapath."""
        return self.dropped

    def learning(self, handles: Sequence[int]) -> list[Learning]:
        """See Datapath."""
        return [self.learning_of.get(handle, Learning()) for handle in handles]

    def suppressed_events(self, handles: Sequence[int]) -> list[int]:
        """See Datapath."""
        return [self.suppressed.get(handle, 0) for handle in handles]


class FakeHost:
    """An agent, and the fakes under it.

    Args:
        devices: what the host has.
    """

    def __init__(self, devices: Sequence[Device] = DEVICES) -> None:
        self.datapath = CountingDatapath()
        self.links = FakeLinks(devices)
        self.store = FakeStore()
        self.config = Config(host="hv1")

    def agent(self) -> Agent:
        """The agent; call it where its event loop runs."""
        return Agent(
            datapath=self.datapath,
            links=self.links,
            store=self.store,
            config=self.config,
            read_config=lambda: self.config,
        )


class ServedHost(FakeHost):
    """A fake host whose agent runs in a thread and answers at `run_dir`/api.sock.

    Attributes:
        running: the agent.
    """

    def __init__(self, run_dir: Path, devices: Sequence[Device] = DEVICES) -> None:
        super().__init__(devices)
        self.run_dir = run_dir
        self.running: Agent
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> ServedHost:
        self._thread.start()
        assert self._ready.wait(10), "the fake agent did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def change(self, make: Callable[[Draft], T]) -> T:
        """Make a change, as the API would."""
        return asyncio.run_coroutine_threadsafe(self.running.change(make), self._loop).result(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.running = self.agent()
        await self.running.start()
        with contextlib.closing(listen_unix(self.run_dir / "api.sock")) as listener:
            config = ServerConfig(
                Gate(create_app(self.running), os.getegid()),
                log_config=None,
                lifespan="off",
                ws="none",
                http=PeerProtocol,
            )
            config.load()
            server = Server(config)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])
            self._ready.set()
            await self._end.wait()
            for listening in server.servers:  # Server.shutdown would sleep
                listening.close()
        await self.running.stop()


async def _run(run_dir: Path) -> None:
    agent = FakeHost().agent()
    await serve(agent, lambda: listen_unix(run_dir / "api.sock"), None, _say_ready)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))

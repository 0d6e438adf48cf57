"""Hosts of a cluster whose agents die when they are told to, and who of them lets a VM send and receive meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from support.clustered import cluster_of, eventually
from support.deaths import steps_left
from support.fleet import Host
from vxagent.core.tables import PortMode
from vxagent.datapath import abi, codec, maps
from vxagent.datapath.bpf_map import Map
from vxagent.lab.agent import running
from vxagent.lab.waiting import wait_until
from vxagent.steps import DIE_AFTER

HANDLES = 48  # more than a host has ports
LOOK_EVERY_S = 0.001


class Mortal:
    """A host whose agent dies when it is told to. It is started anew for that."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._file = host.world.directory() / "die-after"
        host.agent.kill()
        self._up()

    def die_after(self, steps: int) -> None:
        """As many as it takes from now on."""
        self._file.write_text(str(steps))

    def spare(self) -> int:
        """Let it live; return how many steps were left."""
        left = steps_left(self._file, remove=True) if self._file.exists() else None
        if left == 0:
            self._raise()
        return left or 0

    def raised(self) -> bool:
        """If its agent has died start the next one, and wait until that has the engine; whether it had."""
        if not self._file.exists() or steps_left(self._file) > 0:
            return False
        self._file.unlink()
        self._raise()
        return True

    def _raise(self) -> None:
        wait_until(lambda: not running(self._pid), what="the agent is dead")
        self._up()

    def _up(self) -> None:
        os.environ[DIE_AFTER] = str(self._file)
        try:
            self.host.agent.up()
        finally:
            del os.environ[DIE_AFTER]
        self._pid = self.host.agent.pid
        eventually(lambda: cluster_of(self.host) == "connected", f"{self.host.name} is connected")


class PortsUp:
    """The ports of a host that are up, by the kernel's own tables.

    Args:
        newcomer: the device of a port that is not to be known as one that was there before.
    """

    def __init__(self, host: Host, newcomer: str) -> None:
        opened = Map.open(
            host.agent.run_dir / "bpf" / f"v{abi.LAYOUT}" / "ports",
            maps.declare(maps.DEFAULT_SIZES)["ports"],
            adopt=True,
        )
        assert opened is not None
        self.map = opened
        there = {row["ifname"]: row["ifindex"] for row in host.links()}
        self._before = self._up() - {there.get(newcomer, 0)}

    def new(self) -> set[int]:
        """Devices of ports that are up and were not there before."""
        return self._up() - self._before

    def _up(self) -> set[int]:
        rows = (abi.PORT.unpack(self.map.lookup(codec.U32.pack(handle)) or b"") for handle in range(1, HANDLES))
        return {row["ifindex"] for row in rows if row["handle"] and row["state"] == PortMode.UP}


@contextmanager
def never_up_twice(hosts: Sequence[Host], newcomer: str) -> Iterator[None]:
    """Meanwhile at most one of two hosts has a port up beside those that it has now; nothing else is attached.

    Args:
        newcomer: its device, if that is there now.
    """
    with ExitStack() as stack:
        one, other = (PortsUp(host, newcomer) for host in hosts)
        for table in (one, other):
            stack.enter_context(table.map)
        seen: list[tuple[set[int], set[int]]] = []
        over = threading.Event()

        def look() -> None:
            """What is up before and after the other one was looked at was so meanwhile."""
            while not over.wait(LOOK_EVERY_S):
                before, there, after = one.new(), other.new(), one.new()
                if before & after and there:
                    seen.append((before & after, there))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            over.set()
            looking.join()
    assert not seen, seen

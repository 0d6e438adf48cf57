"""Real agents among simulated hosts."""

from __future__ import annotations

import itertools
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from support.clustered import Clustered
from support.fleet import Host
from support.swarm_layout import Layout
from vxagent.core.tables import fdb_key, split_fdb_key
from vxagent.datapath.bpf_map import Map
from vxagent.errors import VxagentError
from vxagent.lab.waiting import wait_until
from vxagent.model.ids import mac_to_int

EVERY_S = 0.25
LOOK_S = 0.0002
SEEN_S = 60.0
KNOWN_S = 300.0


@dataclass
class Taken:
    """How long it took, in ms, from asking one agent for a port until the other's kernel knew its MAC.

    Attributes:
        lost: ports that were refused or not known in time.
    """

    ms: list[float] = field(default_factory=list)
    lost: int = 0


class Beside:
    """The agents of a fleet, in the segments of the first simulated host.

    Devices of the ports that they attach are not there: what that costs is the kernel's (docs/scale.md).
    """

    def __init__(self, fleet: Clustered, layout: Layout) -> None:
        self._one, self._other = fleet.hosts[:2]
        self._fleet = fleet
        self._layout = layout
        self._segments = layout.segments_of(0)
        self._numbers = itertools.count(1)

    def join(self) -> float:
        """Take these segments; return after how many seconds everything in them was known."""
        began = time.monotonic()
        wanted = sum(self._layout.count_in(name) for name in self._segments)
        for host in self._fleet.hosts:
            for name in self._segments:
                said = self._layout.segment(name)
                body = {"name": name, "tenant": said.tenant, "vni": said.vni, "mtu": said.mtu}
                host.client.change("POST", "v1", "segments", body=body)
        for host in self._fleet.hosts:
            wait_until(partial(_knows, host, self._segments, wanted), within=KNOWN_S, what=f"{host.name} knows all")
        return time.monotonic() - began

    def leave(self) -> None:
        """Give these segments up again."""
        for host in self._fleet.hosts:
            for name in self._segments:
                host.client.change("DELETE", "v1", "segments", name)

    def pids(self) -> list[int]:
        """Of the agents."""
        return [host.agent.pid for host in self._fleet.hosts]

    @contextmanager
    def attaching(self) -> Iterator[Taken]:
        """Attach ports at one agent meanwhile, one after the other."""
        taken = Taken()
        ending = threading.Event()
        thread = threading.Thread(target=self._attach, args=(taken, ending))
        thread.start()
        try:
            yield taken
        finally:
            ending.set()
            thread.join()

    def _attach(self, taken: Taken, ending: threading.Event) -> None:
        pin = max(self._other.agent.run_dir.glob("bpf/v*/fdb"))
        fdb = Map.open_as_it_is(pin, "fdb")
        assert fdb is not None
        with fdb:
            segment = self._number_of_segment(fdb)
            while not ending.wait(EVERY_S):
                try:
                    taken.ms.append(1e3 * self._one_port(fdb, segment))
                except (VxagentError, TimeoutError) as error:  # the engine has too much to do
                    print(f"real agents: {error}", file=sys.stderr)
                    taken.lost += 1

    def _number_of_segment(self, fdb: Map) -> int:
        """By which the other's kernel knows the first segment."""
        _, port = next(iter(self._layout.ports_in(self._segments[0])))
        keys = (key for batch in fdb.batches() for (key,) in struct.iter_unpack("=Q", batch.keys[: 8 * batch.count]))
        return next(segment for segment, mac in map(split_fdb_key, keys) if mac == mac_to_int(port.macs[0]))

    def _one_port(self, fdb: Map, segment: int) -> float:
        """Attach it, wait until it is known, and detach it; the seconds until then."""
        number = next(self._numbers)
        mac, name = f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}", f"real{number}"
        key = struct.pack("=Q", fdb_key(segment, mac_to_int(mac)))
        body = {"ifname": name, "segment": self._segments[0], "mac": [mac]}
        client = self._one.client
        failed: list[VxagentError] = []

        def attach() -> None:
            try:
                client.change("POST", "v1", "ports", body=body)
            except VxagentError as error:
                failed.append(error)

        began = time.monotonic()
        attaching = threading.Thread(target=attach)
        attaching.start()
        try:
            while fdb.lookup(key) is None and not failed:
                if time.monotonic() > began + SEEN_S:
                    raise TimeoutError(f"{name} was not known within {SEEN_S:.0f} s")
                time.sleep(LOOK_S)
            took = time.monotonic() - began
        finally:
            attaching.join()
        if failed:
            raise failed[0]
        client.change("DELETE", "v1", "ports", name)
        return took


def _knows(host: Host, segments: tuple[str, ...], wanted: int) -> bool:
    there = (row for name in segments for row in host.client.get("v1", "fdb", segment=name))
    return sum(row["vtep"] is not None for row in there) >= wanted

"""The links of one hook, pinned by port handle: they outlive the agent, and so does what runs there.

An agent that lives holds them open as well, so that they outlive their pins: whoever unmounts the bpffs takes no
program off. The pins are made anew by the ledger.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vxagent.datapath import bpf
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_prog import AttachType, Program
from vxagent.datapath.ledger import Ledger

_SHARE = 4  # of all descriptors that the process may have, what the links of one hook may take: one in so many


class PinnedLinks:
    """Links below one directory. Methods may be called from several threads at once.

    Args:
        directory: of the pins.
        hook: where the links are.
        ledger: where given, links are held open, as far as there are descriptors, and their pins noted there.
    """

    def __init__(self, directory: Path, hook: AttachType, ledger: Ledger | None = None) -> None:
        self._directory = directory
        self._hook = hook
        self._ledger = ledger
        self._held: dict[int, Link] = {}
        self._lock = threading.RLock()

    def hold(self) -> None:
        """Hold open what is pinned."""
        with self._lock:
            for handle in self._handles():
                link = None if handle in self._held else Link.open(self._pin(handle))
                if link is not None:
                    self._keep(handle, link)

    def close(self) -> None:
        """Let go of all descriptors."""
        with self._lock:
            for link in self._held.values():
                link.close()
            self._held.clear()

    def run(self, handle: int, ifindex: int, ifname: str, program: Program) -> None:
        """Run a program on a device for a port; where the port runs one there already, swap it.

        Raises:
            HostError, BpfError: as `Link.create`.
        """
        with self._lock:
            with self._link(handle) as link:
                if link is not None and link.ifindex == ifindex and link.update(program):
                    return
                if link is not None:
                    self._take_off(handle, link)
            created = Link.create(program, self._hook, ifindex, ifname)
            try:
                bpf.pin(created.fd, self._pin(handle))
            except BaseException:
                created.detach()  # now, so that another attempt does not find it there
                created.close()
                raise
            self._keep(handle, created)

    def take_off(self, handle: int) -> None:
        """Take a port's program off; without one that is no failure."""
        with self._lock, self._link(handle) as link:
            if link is not None:
                self._take_off(handle, link)

    def swap(self, program: Program) -> None:
        """Run this program wherever one runs, without losing a frame."""
        with self._lock:
            for handle, link in self._links():
                if not link.update(program):
                    self._take_off(handle, link)

    def ifindexes(self) -> dict[int, int]:
        """Port handle → ifindex, 0 where the device is gone."""
        with self._lock:
            return {handle: link.ifindex for handle, link in self._links()}

    def runs(self, wanted: Mapping[int, int], program_id: int) -> dict[int, bool]:
        """Port handle → whether this program runs on that device (`wanted`: handle → ifindex)."""
        found = {}
        with self._lock:
            for handle, ifindex in wanted.items():
                with self._link(handle) as link:
                    found[handle] = link is not None and link.where() == (ifindex, program_id)
        return found

    def program_ids(self) -> set[int]:
        """The kernel's numbers of the programs that run."""
        with self._lock:
            return {link.where()[1] for _, link in self._links()}

    def remove(self) -> None:
        """Take all off."""
        with self._lock:
            for handle, link in self._links():
                self._take_off(handle, link)

    def _links(self) -> Iterator[tuple[int, Link]]:
        """Handle and link of every port; those that are not held are closed afterwards."""
        for handle in self._handles():
            with self._link(handle) as link:
                if link is not None:  # else removed since
                    yield handle, link

    def _handles(self) -> list[int]:
        """Of those that are pinned or held; a name that is no handle is somebody else's."""
        pinned = (pin.name for pin in bpf.pins_in(self._directory))
        return sorted({int(name) for name in pinned if name.isdecimal()} | self._held.keys())

    @contextmanager
    def _link(self, handle: int) -> Iterator[Link | None]:
        held = self._held.get(handle)
        if held is not None:
            yield held
            return
        link = Link.open(self._pin(handle))
        if link is None:
            yield None
        else:
            with link:
                yield link

    def _keep(self, handle: int, link: Link) -> None:
        """Hold it if there is room."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE
        if self._ledger is None or len(self._held) >= most:
            link.close()
            return
        self._held[handle] = link
        self._ledger.note(self._pin(handle), link)

    def _take_off(self, handle: int, link: Link) -> None:
        """First what may fail: with its pin the link goes on. Then detach: the kernel lets go of an unpinned link only
        some time later."""
        pin = self._pin(handle)
        bpf.unpin(pin)
        if self._ledger is not None:
            self._ledger.forget(pin)
        link.detach()
        self._held.pop(handle, None)
        link.close()

    def _pin(self, handle: int) -> Path:
        return self._directory / str(handle)

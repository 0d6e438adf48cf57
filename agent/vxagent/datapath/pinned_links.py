"""The links of one hook, pinned by port handle: they outlive the agent, and so does what runs there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vxagent.datapath import bpf
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_prog import AttachType, Program


class PinnedLinks:
    """Links below one directory.

    Args:
        directory: of the pins.
        hook: where the links are.
    """

    def __init__(self, directory: Path, hook: AttachType) -> None:
        self._directory = directory
        self._hook = hook

    def run(self, handle: int, ifindex: int, ifname: str, program: Program) -> None:
        """Run a program on a device for a port; where the port runs one there already, swap it.

        Raises:
            HostError, BpfError: as `Link.create`.
        """
        pin = self._pin(handle)
        link = Link.open(pin)
        if link is not None:
            with link:
                if link.ifindex == ifindex and link.update(program):
                    return
                _take_off(link, pin)
        with Link.create(program, self._hook, ifindex, ifname) as created:
            bpf.pin(created.fd, pin)

    def take_off(self, handle: int) -> None:
        """Take a port's program off; without one that is no failure."""
        pin = self._pin(handle)
        link = Link.open(pin)
        if link is not None:
            with link:
                _take_off(link, pin)

    def swap(self, program: Program) -> None:
        """Run this program wherever one runs, without losing a frame."""
        for _, pin, link in self._links():
            if not link.update(program):
                _take_off(link, pin)

    def ifindexes(self) -> dict[int, int]:
        """Port handle → ifindex, 0 where the device is gone."""
        return {handle: link.ifindex for handle, _, link in self._links()}

    def program_ids(self) -> set[int]:
        """The kernel's numbers of the programs that run."""
        return {link.program_id for _, _, link in self._links()}

    def remove(self) -> None:
        """Take all off."""
        for _, pin, link in self._links():
            _take_off(link, pin)

    def _links(self) -> Iterator[tuple[int, Path, Link]]:
        """Handle, pin and link of every port; the link is closed afterwards."""
        if not self._directory.is_dir():
            return
        for pin in sorted(self._directory.iterdir()):
            link = Link.open(pin)
            if link is not None:  # else removed since
                with link:
                    yield int(pin.name), pin, link

    def _pin(self, handle: int) -> Path:
        return self._directory / str(handle)


def _take_off(link: Link, pin: Path) -> None:
    """Detach now: the kernel lets go of an unpinned link only some time later."""
    link.detach()
    pin.unlink(missing_ok=True)

"""Where the kernel's objects are pinned, below one root.

    v<layout>/<map>        the shared maps; another layout has another directory
    v<layout>/progs-<n>    the tail-call table of generation n of the programs
    gone-v<layout>/        the same, while it is being removed: no switch's any more, however that ends
    links/<handle>         the tcx link of a port
    xdp/<handle>           its XDP link, where it has one

Names in a bpffs have no dots.
"""

from __future__ import annotations

import os
from pathlib import Path

from vxagent import steps
from vxagent.datapath import abi, bpf, maps
from vxagent.errors import HostError

_PROGS = f"{maps.PROGS}-"
_GONE = "gone-"


class Pins:
    """The directories and names under one root, which lies in a bpffs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.maps = root / f"v{abi.LAYOUT}"
        self.links = root / "links"
        self.xdp = root / "xdp"

    def make(self) -> None:
        """Make the directories, and end what an agent has died in that was removing them.

        Raises:
            HostError: no right to.
        """
        self._remove_gone()
        for directory in (self.maps, self.links, self.xdp):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                steps.taken()
            except OSError as exc:
                mend = f"run as root, or have root do: install -d -m 0700 -o {os.geteuid()} {self.root}"
                raise HostError(f"cannot make {directory}: {exc.strerror}", mend) from exc

    def is_empty(self) -> bool:
        """Nothing was ever pinned here, by this layout or another."""
        there = (path for path in self.root.iterdir() if path.is_dir()) if self.root.exists() else ()
        return all(path.name.startswith(_GONE) for path in there)

    def map(self, name: str) -> Path:
        """The pin of a shared map."""
        return self.maps / name

    def generation(self, number: int) -> Path:
        """The pin of a generation's tail-call table."""
        return self.maps / f"{_PROGS}{number}"

    def generations(self) -> list[int]:
        """The numbers of those that are pinned, oldest first."""
        return sorted(int(pin.name.removeprefix(_PROGS)) for pin in self.maps.glob(f"{_PROGS}*"))

    def remove_generation(self, number: int) -> None:
        """Unpin a generation's tail-call table: the kernel empties it once nobody holds it."""
        bpf.unpin(self.generation(number))

    def remove(self) -> None:
        """Remove every pin and directory under the root, those of other layouts too. Maps go at one stroke: some of
        them without the others would be a switch that has forgotten half of what it knew.

        Raises:
            HostError: no right to.
        """
        if not self.root.is_dir():
            return
        try:
            self._remove_gone()
            for directory in (path for path in self.root.iterdir() if path.is_dir()):
                directory.rename(self.root / f"{_GONE}{directory.name}")
                steps.taken()
            self._remove_gone()
            if not self.root.is_mount():
                self.root.rmdir()
                steps.taken()
        except OSError as exc:
            raise HostError(f"cannot remove the pins in {self.root}: {exc.strerror}", "run as root") from exc

    def _remove_gone(self) -> None:
        for directory in self.root.glob(f"{_GONE}*"):
            for pin in directory.iterdir():
                pin.unlink()
                steps.taken()
            directory.rmdir()
            steps.taken()

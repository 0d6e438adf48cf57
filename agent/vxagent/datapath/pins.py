"""Where the kernel's objects are pinned, below one root.

    v<layout>/<map>              the tables of a switch, and what describes them (`description`)
    v<layout>/progs-<n>          the tail-call table of generation n of the programs
    v<layout>-<serial>/…         tables that took, or are about to take, over from others (`handover.py`)
    v<layout>-<serial>/live      of these: programs that go by them may run
    gone-v<layout>/              a set while it is being removed: no switch's any more, however that ends
    links/<handle>               the tcx link of a port
    xdp/<handle>                 its XDP link, where it has one
    out/<handle>                 the tcx link at the egress of the underlay device

Names in a bpffs have no dots.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vxagent import steps
from vxagent.datapath import abi, bpf, maps
from vxagent.errors import HostError

DESCRIPTION = "description"

_PROGS = f"{maps.PROGS}-"
_GONE = "gone-"
_LIVE = "live"
_SET = re.compile(r"v(\d+)(?:-(\d+))?")


class SetPins:
    """The pins of one set of tables.

    Attributes:
        directory: where they are.
        layout: the layout version in its name.
        serial: sets of a higher one are newer.
    """

    def __init__(self, directory: Path, layout: int, serial: int) -> None:
        self.directory = directory
        self.layout = layout
        self.serial = serial

    @property
    def description(self) -> Path:
        """The pin of what describes the tables."""
        return self.directory / DESCRIPTION

    @property
    def live(self) -> Path:
        """The pin that says that programs may run by these tables."""
        return self.directory / _LIVE

    def make(self) -> None:
        """Make the directory. Raises HostError: no right to."""
        _make(self.directory)

    def map(self, name: str) -> Path:
        """The pin of a map."""
        return self.directory / name

    def maps(self) -> list[str]:
        """The names of the maps that are pinned."""
        names = (pin.name for pin in bpf.pins_in(self.directory))
        return sorted(name for name in names if name not in (DESCRIPTION, _LIVE) and not name.startswith(_PROGS))

    def generation(self, number: int) -> Path:
        """The pin of a generation's tail-call table."""
        return self.directory / f"{_PROGS}{number}"

    def generations(self) -> list[int]:
        """The numbers of those that are pinned, oldest first."""
        there = (pin.name for pin in bpf.pins_in(self.directory))
        return sorted(int(name.removeprefix(_PROGS)) for name in there if name.startswith(_PROGS))

    def remove_generation(self, number: int) -> None:
        """Unpin a generation's tail-call table: the kernel empties it once nobody holds it."""
        bpf.unpin(self.generation(number))

    def remove(self) -> None:
        """Unpin everything, what describes it last.

        Raises:
            HostError: no right to.
        """
        try:
            for pin in sorted(self.directory.iterdir(), key=lambda pin: pin.name == DESCRIPTION):
                pin.unlink()
                steps.taken()
            self.directory.rmdir()
            steps.taken()
        except OSError as exc:
            raise HostError.of(f"cannot remove the pins in {self.directory}", exc, "run as root") from exc


class Pins:
    """The directories and names under one root, which lies in a bpffs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.links = root / "links"
        self.xdp = root / "xdp"
        self.out = root / "out"

    def make(self) -> None:
        """Make the directories of links, and end what an agent has died in that was removing all.

        Raises:
            HostError: no right to.
        """
        self._remove_gone()
        for directory in (self.links, self.xdp, self.out):
            _make(directory)

    def is_empty(self) -> bool:
        """Nothing was ever pinned here, by this layout or another."""
        there = (path for path in bpf.pins_in(self.root) if path.is_dir())
        return all(path.name.startswith(_GONE) for path in there)

    def sets(self) -> list[SetPins]:
        """The sets of tables that programs may run by, oldest first: the oldest one, and those that say so."""
        there = self._all_sets()
        return [one for one in there if one is there[0] or one.live.exists()]

    def unfinished(self) -> list[SetPins]:
        """Sets of tables that were being prepared: no program runs by them."""
        return [one for one in self._all_sets()[1:] if not one.live.exists()]

    def remove_unfinished(self) -> None:
        """Remove these. Raises HostError: no right to."""
        for one in self.unfinished():
            one.remove()

    def next_set(self) -> SetPins:
        """A set of tables that is not there yet."""
        serial = max((one.serial for one in self._all_sets()), default=-1) + 1
        name = f"v{abi.LAYOUT}-{serial}" if serial else f"v{abi.LAYOUT}"
        return SetPins(self.root / name, abi.LAYOUT, serial)

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
            raise HostError.of(f"cannot remove the pins in {self.root}", exc, "run as root") from exc

    def _remove_gone(self) -> None:
        for directory in self.root.glob(f"{_GONE}*"):
            for pin in directory.iterdir():
                pin.unlink()
                steps.taken()
            directory.rmdir()
            steps.taken()

    def _all_sets(self) -> list[SetPins]:
        found = [(path, _SET.fullmatch(path.name)) for path in bpf.pins_in(self.root)]
        sets = [SetPins(path, int(match[1]), int(match[2] or 0)) for path, match in found if match]
        return sorted(sets, key=lambda one: (one.serial, one.layout))


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        steps.taken()
    except OSError as exc:
        mend = f"run as root, or have root do: install -d -m 0700 -o {os.geteuid()} {directory.parent}"
        raise HostError.of(f"cannot make {directory}", exc, mend) from exc

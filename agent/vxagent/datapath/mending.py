"""What the data path may lose of its own while it runs, and how that is made anew; nothing that forwards is touched."""

from __future__ import annotations

from pathlib import Path

from vxagent.core.audit import Fault, Thing
from vxagent.core.effects import Mend
from vxagent.datapath import bpffs
from vxagent.datapath.ledger import Ledger
from vxagent.datapath.pins import Pins, SetPins
from vxagent.datapath.programs import Generation
from vxagent.errors import HostError


class Mender:
    """Looks after the pins and the table of tail calls.

    Args:
        pins, tables: where they belong.
        mount: where the bpffs belongs.

    Attributes:
        ledger: of the pins.
    """

    def __init__(self, pins: Pins, tables: SetPins, mount: Path, ledger: Ledger) -> None:
        self._pins = pins
        self._tables = tables
        self._mount = mount
        self.ledger = ledger

    def faults(self, generation: Generation | None) -> list[Fault]:
        """What is lost; the file system of the pins comes before them."""
        lost = self.ledger.lost()
        found = [Fault(thing=Thing.PIN, name=str(pin.relative_to(self._pins.root))) for pin in lost]
        if lost and not bpffs.holds(self._pins.root):
            found.insert(0, Fault(thing=Thing.BPFFS, name=str(self._mount)))
        wrong = [] if generation is None else generation.wrong_tail_calls()
        return [*found, *(Fault(thing=Thing.TAIL_CALL, name=name) for name in wrong)]

    def mend(self, effect: Mend, generation: Generation | None) -> None:
        """Put right one of these.

        Raises:
            HostError: no right to.
        """
        match effect.thing:
            case Thing.BPFFS:
                bpffs.ensure(self._mount, self._pins.root)
            case Thing.PIN:
                if not bpffs.holds(self._pins.root):  # no directories of ours below it
                    raise HostError(f"no bpffs at {self._mount}", f"have root do: mount -t bpf bpf {self._mount}")
                self._pins.make()
                self._tables.make()
                self.ledger.mend(self._pins.root / effect.name)
            case Thing.TAIL_CALL if generation is not None:
                generation.mend_tail_call(effect.name)

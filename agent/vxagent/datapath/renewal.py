"""A generation of programs takes the place of the one before, under traffic."""

from __future__ import annotations

from vxagent.datapath.bytecode import Bytecode
from vxagent.datapath.grace import grace_period
from vxagent.datapath.opened import Opened
from vxagent.datapath.probe import probe


def renew(opened: Opened, code: Bytecode, *, swap: bool) -> None:
    """Load a new generation and probe it; swap every link to it, then remove the older ones.

    Args:
        swap: unless the tables have yet to take over from others, which swaps.

    Raises:
        HostError, OSError: the kernel refused, or the programs do not pass their probe; what ran before goes on.
    """
    older = opened.tables.pins.generations()
    previous = opened.generation
    with grace_period() as wait:
        number = opened.load(code)
        try:
            probe(opened)
            if swap:
                opened.swap()
        except BaseException:
            opened.drop_generation(number, previous)
            raise
        if not swap or not older:
            return
        opened.epoch.rise()
        wait()
    if previous is not None:
        previous.close()
    for old in older:
        opened.forget_generation(old)

"""Waits until no program runs any more that was running before.

A link's program is swapped at once, but another CPU may be in the midst of the old one: it still calls by the old
tail-call table and writes to the old tables. The kernel waits for such programs (an RCU grace period, some
milliseconds) before it returns from the update of a map of maps, so that user space knows that the new inner map is
what all programs see: `maybe_wait_bpf_programs` in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vxagent.datapath.bpf_map import Map, MapSpec, MapType

_KEY = bytes(4)


@contextmanager
def grace_period() -> Iterator[Callable[[], object]]:
    """What is given returns, when it is called, as soon as every run of a program that had begun has ended.

    Enter before anything is swapped: afterwards it would be too late to find that there is no room for what it takes.

    Raises:
        BpfError: the kernel refused the maps that this takes.
    """
    inner = MapSpec(name="vx_grace_inner", type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    outer = MapSpec(name="vx_grace", type=MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=1)
    with Map.create(inner) as made, Map.create(outer, inner=made) as waits:
        yield lambda: waits.update(_KEY, struct.pack("=I", made.fd))

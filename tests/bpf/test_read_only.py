"""A bpffs that is read-only, as after `mount -o remount,ro`: what is asked is refused, and nothing of it is done.

tester ── a1 ═══ a0 ── switch's program
       ── b1 ═══ b0
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.place import Place
from support.tcx import program_ids
from vxagent.core.effects import Attach, Detach
from vxagent.datapath.bpf import BpfError
from vxagent.lab.namespaces import run


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    """The pins cannot be changed."""
    run("mount", "-o", "remount,ro", str(place.root))
    try:
        yield
    finally:
        run("mount", "-o", "remount,rw", str(place.root))


def test_a_port_that_cannot_be_detached_goes_on(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    running = program_ids(place.ifindex["a0"])
    with read_only(place), pytest.raises(BpfError, match="Read-only file system; mount it read-write"):
        datapath.detach(Detach(handle=1, ifindex=place.ifindex["a0"], ifname="a0"))
    assert program_ids(place.ifindex["a0"]) == running
    datapath.detach(Detach(handle=1, ifindex=place.ifindex["a0"], ifname="a0"))
    assert program_ids(place.ifindex["a0"]) == []


def test_a_port_that_cannot_be_pinned_is_not_attached(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    attach = Attach(handle=2, ifindex=place.ifindex["b0"], ifname="b0")
    with read_only(place), pytest.raises(BpfError, match=r"pin .*/links/2: Read-only file system; mount it read-write"):
        datapath.attach(attach)
    assert program_ids(place.ifindex["b0"]) == []
    datapath.attach(attach)
    assert len(program_ids(place.ifindex["b0"])) == 1


def test_programs_that_cannot_be_pinned_replace_none(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    running = program_ids(place.ifindex["a0"])
    with read_only(place), pytest.raises(BpfError, match="Read-only file system"):
        datapath.reload()
    assert program_ids(place.ifindex["a0"]) == running
    datapath.reload()
    assert program_ids(place.ifindex["a0"]) != running

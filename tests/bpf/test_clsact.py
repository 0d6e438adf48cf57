"""The stand-in for tcx on kernels before 6.6, forced on this one, with real filters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.place import SIZES, Place
from support.tcx import program_ids
from vxagent.datapath import bpf_link
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.errors import HostError
from vxagent.lab.waiting import wait_until
from vxagent.netlink.links import NetlinkLinks


@pytest.fixture
def links(place: Place) -> Iterator[NetlinkLinks]:
    made = NetlinkLinks()
    yield made
    made.close()


def _program(place: Place, device: str) -> str:
    """The number of the program at the device's clsact ingress, as tc(8) shows it; "" for none."""
    _, _, after = place.namespace.run("tc", "filter", "show", "dev", device, "ingress").stdout.partition(" id ")
    return after.split()[0] if after else ""


def _drops(datapath: BpfDatapath) -> int:
    return sum(drop.packets for drop in datapath.drops())


def test_frames_go_through_the_program(place: Place, links: NetlinkLinks) -> None:
    place.join(datapath := place.opened(clsact=links), 1, "a0")
    assert program_ids(place.ifindex["a0"]) == []
    assert datapath.attached() == {1: place.ifindex["a0"]}
    place.send("a0", 3)
    wait_until(lambda: _drops(datapath) == 3)


def test_the_next_agent_finds_and_swaps_it(place: Place, links: NetlinkLinks) -> None:
    place.join(first := place.opened(clsact=links), 1, "a0")
    before = _program(place, "a0")
    first.close()
    second = place.opened(clsact=links)
    assert second.attached() == {1: place.ifindex["a0"]}
    assert _program(place, "a0") not in (before, "")
    assert place.tables.generations() == [2]


def test_detaching_takes_it_off(place: Place, links: NetlinkLinks) -> None:
    place.join(datapath := place.opened(clsact=links), 1, "a0")
    datapath.detach(place.detach(1, "a0"))
    assert _program(place, "a0") == ""
    assert datapath.attached() == {}


def test_a_device_that_vanishes_is_attached_no_more(place: Place, links: NetlinkLinks) -> None:
    place.join(datapath := place.opened(clsact=links), 1, "a0")
    effect = place.detach(1, "a0")
    place.unplug("a")
    assert datapath.attached() == {}
    datapath.detach(effect)


@pytest.mark.parametrize("is_open", [True, False])
def test_destroy_takes_it_off(is_open: bool, place: Place, links: NetlinkLinks) -> None:
    place.join(datapath := place.opened(clsact=links), 1, "a0")
    if not is_open:
        datapath.close()
        datapath = place.datapath(clsact=links)
    datapath.destroy()
    assert _program(place, "a0") == ""
    assert not place.root.exists()


def test_without_tcx_and_clsact_it_says_so_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, bytecode_cache: Path
) -> None:
    monkeypatch.setattr(bpf_link, "has_tcx", lambda: False)
    datapath = BpfDatapath(place.root, bytecode_cache, sizes=SIZES)
    with pytest.raises(HostError, match=r"this kernel has no tcx; use kernel 6\.6 or newer"):
        datapath.open()
    assert not place.root.exists()

"""What the agent does with memberships: it begins them, shows them, and clears away what has run out."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.multicast import family, octets
from support.place import Place
from support.rig import Rig
from vxagent.core.effects import PutRow
from vxagent.core.tables import MembershipRow, SegmentFlag, SegmentRow, Table, slot_key
from vxagent.datapath import abi
from vxagent.datapath.base import Group
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.groups import GroupMaps

NS = 1_000_000_000
G4, G6 = "239.1.1.1", "ff05::1:3"
BOTH = pytest.mark.parametrize("group", [G4, G6])
PLACE = MembershipRow(port=2, segment=1, vid=0, slot=3, counter=7)
SNOOPED = SegmentRow(handle=1, slots=4, mtu=1500, flags=SegmentFlag.GROUPS, vni=0, vlan=0)
KNOWN = struct.pack("=4Q", *range(1, 5))


def _key(group: str, *, port: int = 2, segment: int = 1) -> bytes:
    return abi.GROUP_KEY.struct.pack(segment, port, family(group), 0, octets(group))


def _row(group: str, *, port: int = 2, segment: int = 1, since: int = 0, left_s: float = 60) -> bytes:
    expires = time.monotonic_ns() + int(left_s * NS)
    return abi.GROUP.struct.pack(segment, port, family(group), 0, octets(group), since, expires)


def _join(maps: dict[str, Map], group: str, *, since: int = 0, left_s: float = 60, **where: int) -> None:
    maps["groups"].update(_key(group, **where), _row(group, since=since, left_s=left_s, **where))


def _listen(maps: dict[str, Map], counter: int, since: int, *, router_s: float = 0, refused: int = 0) -> None:
    router = time.monotonic_ns() + int(router_s * NS) if router_s else 0
    row = abi.LISTENING.struct.pack(since, 0, router, 9, 9, 9, refused)
    maps["listening"].update(struct.pack("=I", counter), row)


# -- Beginnings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def datapath(place: Place) -> BpfDatapath:
    opened = place.datapath()
    opened.open()
    return opened


def _listening(place: Place) -> tuple[int, ...]:
    value = place.map("listening").lookup(struct.pack("=I", PLACE.counter))
    return abi.LISTENING.struct.unpack(value or b"")


@pytest.mark.parametrize(
    "old", [None, replace(PLACE, port=5), replace(PLACE, counter=8)], ids=["new", "port", "counter"]
)
def test_a_place_begins_with_nothing(place: Place, datapath: BpfDatapath, old: MembershipRow | None) -> None:
    _listen({"listening": place.map("listening")}, PLACE.counter, since=1, router_s=60, refused=3)
    before = time.monotonic_ns()
    datapath.put(PutRow(table=Table.SLOTS, key=slot_key(1, 3), row=PLACE, old=old))
    since, *rest = _listening(place)
    assert before <= since <= time.monotonic_ns()
    assert rest == [0] * 6


def test_a_place_that_goes_on_keeps_what_is_known(place: Place, datapath: BpfDatapath) -> None:
    _listen({"listening": place.map("listening")}, PLACE.counter, since=1, router_s=60)
    before = _listening(place)
    datapath.put(PutRow(table=Table.SLOTS, key=slot_key(1, 3), row=replace(PLACE, vid=10), old=PLACE))
    assert _listening(place) == before


@pytest.mark.parametrize(
    ("old", "forgets"),
    [
        pytest.param(None, True, id="new"),
        pytest.param(replace(SNOOPED, flags=SegmentFlag.DROP_UNKNOWN), True, id="not snooped before"),
        pytest.param(replace(SNOOPED, mtu=9000), False, id="snooped before"),
    ],
)
def test_a_segment_begins_to_be_snooped_without_a_querier(
    place: Place, datapath: BpfDatapath, old: SegmentRow | None, forgets: bool
) -> None:
    key = struct.pack("=I", 1)
    queriers = place.map("queriers")
    queriers.update(key, KNOWN)
    datapath.put(PutRow(table=Table.SEGMENTS, key=1, row=SNOOPED, old=old))
    assert queriers.lookup(key) == (bytes(len(KNOWN)) if forgets else KNOWN)


# -- Reading and clearing ----------------------------------------------------------------------------------------------


@BOTH
def test_what_is_shown(rig: Rig, group: str) -> None:
    _listen(rig.maps, 7, since=5, router_s=60, refused=3)
    _listen(rig.maps, 8, since=6)
    _join(rig.maps, group, port=2, since=5)
    _join(rig.maps, group, port=3, since=5)  # of an earlier place
    _join(rig.maps, group, port=4, since=6)  # not asked for
    _join(rig.maps, group, port=2, segment=2, since=5)  # not asked for
    now = time.monotonic_ns()
    rig.maps["queriers"].update(struct.pack("=I", 1), struct.pack("=4Q", 1, 1, now - 1, now + 60 * NS))
    known = GroupMaps(rig.maps).read({(1, 2): 7, (1, 3): 8})
    (only,) = known.groups
    assert only == Group(segment=1, port=2, group=ip_address(group), expires_s=only.expires_s)
    assert only.expires_s == pytest.approx(60, abs=5)
    assert known.routers == {(1, 2)}
    assert known.refused == {(1, 2): 3, (1, 3): 0}
    ipv4_s, ipv6_s = known.queriers[1]
    assert ipv4_s == 0
    assert ipv6_s == pytest.approx(60, abs=5)


@BOTH
def test_what_has_run_out_is_neither_shown_nor_kept(rig: Rig, group: str) -> None:
    maps = GroupMaps(rig.maps)
    _join(rig.maps, group, port=2, left_s=-1)
    _join(rig.maps, group, port=3)
    assert [found.port for found in maps.read({(1, 2): 7, (1, 3): 8}).groups] == [3]
    maps.sweep()
    assert rig.maps["groups"].lookup(_key(group, port=2)) is None
    assert rig.maps["groups"].lookup(_key(group, port=3)) is not None


class _Refreshed:
    """The groups map, in which a row is refreshed between being read and being removed."""

    def __init__(self, groups: Map) -> None:
        self._groups = groups

    def __getattr__(self, name: str) -> object:
        return getattr(self._groups, name)

    def pop(self, key: bytes) -> bytes | None:
        self._groups.update(key, _row(G4))
        return self._groups.pop(key)


def test_a_membership_that_is_refreshed_meanwhile_stays(rig: Rig) -> None:
    _join(rig.maps, G4, left_s=-1)
    GroupMaps({**rig.maps, "groups": _Refreshed(rig.maps["groups"])}).sweep()  # type: ignore[dict-item]  # acts as one
    assert rig.maps["groups"].lookup(_key(G4)) is not None

"""Steps 2 and 3: which frames belong to which segment, which to the host, which to nobody."""

from __future__ import annotations

import struct

from support.frames import C_TAG, LINK_LOCAL, S_TAG, ethernet, mac, vlan
from support.outcome import FLOODED, FORWARDED, TO_HOST
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, UNUSED_VID, World
from vxagent.core.tables import Table

OTHER_TPIDS = (S_TAG, 0x9100, 0x9200, 0x9300)


@rows(
    Row(
        name="an access port's untagged frame is in its segment",
        frame=ethernet(mac(2), mac(1)),
        knows=((BLUE, 2),),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1))},
    ),
    Row(
        name="a priority tag is removed and counts as untagged",
        frame=ethernet(mac(2), mac(1), None, vlan(0, pcp=5)),
        knows=((BLUE, 2),),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1))},
    ),
    Row(
        name="an access port's tag is denied",
        frame=ethernet(mac(2), mac(1), None, vlan(10)),
        fate="vlan_denied",
        segment=0,
    ),
    Row(name="VID 4095 is denied", frame=ethernet(mac(2), mac(1), None, vlan(4095)), fate="vlan_denied", segment=0),
    Row(
        name="also one that it had as a trunk, should the row still be there",
        frame=ethernet(mac(2), mac(1), None, vlan(110)),
        prepare=lambda world: world.join(1, RED, 110, 40),
        fate="vlan_denied",
        segment=0,
    ),
    Row(
        name="an access port's VID 1 is a tag like any other",
        frame=ethernet(mac(2), mac(1), None, vlan(1)),
        fate="vlan_denied",
        segment=0,
    ),
    *(
        Row(
            name=f"TPID {tpid:#x} is denied even with VID {vid}",
            frame=ethernet(mac(2), mac(1), None, vlan(vid, tpid=tpid)),
            fate="vlan_denied",
            segment=0,
        )
        for tpid in OTHER_TPIDS
        for vid in (0, 10)
    ),
)
def test_access_port(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    Row(
        name="a VID of the map is its segment",
        port=6,
        frame=ethernet(mac(1), mac(6), None, vlan(110)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(6))},
    ),
    Row(
        name="another VID is another segment",
        port=6,
        frame=ethernet(mac(5), mac(6), None, vlan(120)),
        knows=((RED, 5),),
        fate=FORWARDED,
        segment=RED,
        out={5: ethernet(mac(5), mac(6))},
    ),
    Row(
        name="a VID that is another port's is denied",
        port=6,
        frame=ethernet(mac(1), mac(6), None, vlan(10)),
        fate="vlan_denied",
        segment=0,
    ),
    Row(
        name="without a native segment untagged is denied",
        port=6,
        frame=ethernet(mac(1), mac(6)),
        fate="vlan_denied",
        segment=0,
    ),
    Row(
        name="without a native segment a priority tag is denied",
        port=6,
        frame=ethernet(mac(1), mac(6), None, vlan(0, pcp=7)),
        fate="vlan_denied",
        segment=0,
    ),
    Row(
        name="untagged is the native segment",
        port=7,
        frame=ethernet(mac(1), mac(7)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(7))},
    ),
    Row(
        name="a priority tag is the native segment",
        port=7,
        frame=ethernet(mac(1), mac(7), None, vlan(0, pcp=3)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(7))},
    ),
    Row(
        name="a VID of a map with other TPID is denied",
        port=7,
        frame=ethernet(mac(5), mac(7), None, vlan(30, tpid=S_TAG)),
        fate="vlan_denied",
        segment=0,
    ),
)
def test_trunk_port(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    Row(
        name="a VID of a segment is that segment",
        port=9,
        frame=ethernet(mac(1), mac(50), None, vlan(10)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(50))},
    ),
    Row(name="untagged is the host's", port=9, frame=ethernet(mac(1), mac(50)), fate=TO_HOST, segment=0),
    Row(
        name="a priority tag is the host's",
        port=9,
        frame=ethernet(mac(1), mac(50), None, vlan(0, pcp=2)),
        fate=TO_HOST,
        segment=0,
    ),
    Row(
        name="a VID of no segment is the host's",
        port=9,
        frame=ethernet(mac(1), mac(50), None, vlan(UNUSED_VID)),
        fate=TO_HOST,
        segment=0,
    ),
    Row(
        name="a VID of no segment is the host's with all tags that follow",
        port=9,
        frame=ethernet(mac(1), mac(50), None, vlan(UNUSED_VID), vlan(10)),
        fate=TO_HOST,
        segment=0,
    ),
    *(
        Row(
            name=f"TPID {tpid:#x} is the host's whatever its VID",
            port=9,
            frame=ethernet(mac(1), mac(50), None, vlan(10, tpid=tpid)),
            fate=TO_HOST,
            segment=0,
        )
        for tpid in OTHER_TPIDS
    ),
)
def test_uplink(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    *(
        Row(
            name=f"a port's frame to {address.hex(':')} is dropped",
            frame=ethernet(address, mac(1)),
            fate="link_local",
            segment=0,
        )
        for address in (LINK_LOCAL[:5] + b"\x00", LINK_LOCAL, LINK_LOCAL[:5] + b"\x0f")
    ),
    Row(
        name="a port's tag does not help it",
        port=6,
        frame=ethernet(LINK_LOCAL, mac(6), None, vlan(110)),
        fate="link_local",
        segment=0,
    ),
    Row(name="an uplink's is the host's", port=9, frame=ethernet(LINK_LOCAL, mac(50)), fate=TO_HOST, segment=0),
    Row(
        name="an uplink's is the host's with a segment's VID too",
        port=9,
        frame=ethernet(LINK_LOCAL, mac(50), None, vlan(10)),
        fate=TO_HOST,
        segment=0,
    ),
    *(
        Row(
            name=f"the neighbour {address.hex(':')} is an ordinary group address",
            port=5,
            frame=ethernet(address, mac(5)),
            fate=FLOODED,
            segment=RED,
            out={
                6: ethernet(address, mac(5), None, vlan(120)),
                7: ethernet(address, mac(5), None, vlan(30)),
                9: ethernet(address, mac(5), None, vlan(20)),
                10: ethernet(address, mac(5), None, vlan(20)),
            },
        )
        for address in (bytes.fromhex("0180c2000010"), bytes.fromhex("0180c1ffffff"), bytes.fromhex("0180c3000000"))
    ),
)
def test_link_local(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _without_device(world: World) -> None:
    world.rig.maps["devices"].delete(struct.pack("=I", world.ports[1].ifindex))


def _with_foreign_device(world: World) -> None:
    row = world.rig.get(Table.DEVICES, world.ports[9].ifindex)
    assert row is not None
    world.rig.put(Table.DEVICES, world.ports[1].ifindex, row)


def _without_port(world: World) -> None:
    world.rig.maps["ports"].update(struct.pack("=I", 1), bytes(24))


def _without_segment(world: World) -> None:
    world.rig.maps["segments"].update(struct.pack("=I", BLUE), bytes(16))


def _with_foreign_vid(world: World) -> None:
    """The element of (port 6, VID 110) has been reused for (port 7, VID 30)."""
    row = world.rig.get(Table.VIDS, 7 << 16 | 30)
    assert row is not None
    world.rig.put(Table.VIDS, 6 << 16 | 110, row)


@rows(
    Row(
        name="a device that is in no table",
        frame=ethernet(mac(2), mac(1)),
        prepare=_without_device,
        fate="no_destination",
        where=(0, 0),
    ),
    Row(
        name="a device whose row is an uplink's, reused",
        frame=ethernet(mac(2), mac(1)),
        prepare=_with_foreign_device,
        fate="no_destination",
        where=(0, 0),
    ),
    Row(
        name="a device whose port is gone",
        frame=ethernet(mac(2), mac(1)),
        prepare=_without_port,
        fate="no_destination",
        where=(0, 0),
    ),
    Row(
        name="a segment that is gone",
        frame=ethernet(mac(2), mac(1)),
        prepare=_without_segment,
        fate="vlan_denied",
        segment=0,
    ),
    Row(
        name="a VID whose row is another one's, reused",
        port=6,
        frame=ethernet(mac(1), mac(6), None, vlan(110)),
        prepare=_with_foreign_vid,
        fate="vlan_denied",
        segment=0,
    ),
)
def test_what_is_not_known_is_dropped(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_c_tag_is_the_only_one_that_classifies(world: World) -> None:
    for tpid in (C_TAG, *OTHER_TPIDS):
        fate = world.send(6, ethernet(mac(1), mac(6), None, vlan(110, tpid=tpid))).fate
        assert fate == (FLOODED if tpid == C_TAG else "vlan_denied")

"""In which order rows change when a VM migrates: whatever is looked up in between, a frame has a place to go."""

from __future__ import annotations

import pytest

from vxagent.core.effects import PutRow
from vxagent.core.row_changes import row_changes
from vxagent.core.tables import (
    FdbFlag,
    FdbRow,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    Rows,
    SegmentFlag,
    SegmentRow,
    Table,
)

VIA = 9


def rows(mode: PortMode, *, via: int = 0, redirect: bool = False) -> Rows:
    """A VM's port, and what leads to it."""
    flags = FdbFlag.LISTED | (FdbFlag.REDIRECT if redirect else FdbFlag(0))
    segment = SegmentRow(
        handle=1, slots=1, mtu=1500, flags=SegmentFlag.MOVING if redirect else SegmentFlag(0), vni=0, vlan=0, vteps=0
    )
    port = PortRow(
        ifindex=5,
        flags=PortFlag.MAC_LOCKED,
        state=mode,
        handle=7,
        segment=1,
        counter=1,
        counter_none=2,
        max_macs=1,
    )
    entry = FdbRow(port=7, segment=1, origin=Origin.STATIC, flags=flags, via=via)
    return {(Table.SEGMENTS, 1): segment, (Table.PORTS, 7): port, (Table.FDB, 3): entry}


UP, STANDBY, HOLDING = rows(PortMode.UP), rows(PortMode.STANDBY, via=VIA), rows(PortMode.HOLDING)
DRAINING = rows(PortMode.DRAINING, via=VIA, redirect=True)


@pytest.mark.parametrize(
    ("was", "now", "order"),
    [
        pytest.param(UP, DRAINING, [Table.SEGMENTS, Table.FDB, Table.PORTS], id="it leaves"),
        pytest.param(DRAINING, UP, [Table.PORTS, Table.FDB, Table.SEGMENTS], id="it stays after all"),
        pytest.param(STANDBY, HOLDING, [Table.PORTS, Table.FDB], id="it is on its way"),
        pytest.param(HOLDING, UP, [Table.PORTS], id="it is here"),
        pytest.param(DRAINING, STANDBY, [Table.PORTS, Table.FDB, Table.SEGMENTS], id="it comes back"),
    ],
)
def test_a_frame_for_a_vm_that_migrates_has_a_place_to_go(was: Rows, now: Rows, order: list[Table]) -> None:
    changes = row_changes(was, was, now)
    assert [change.table for change in changes if isinstance(change, PutRow)] == order

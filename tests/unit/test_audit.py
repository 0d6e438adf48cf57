"""The drift audit: what is found, what puts it right, and what is left alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from support.agents import FakeHost
from support.sim import Sim
from vxagent.core.audit import HARMLESS, Drift, Fault, Sight, Thing, examine, tables_changed
from vxagent.core.effects import Attach, DeleteRow, Effect, Mend, PutRow, SetDevice, SetXdp, Xdp
from vxagent.core.patience import FIRST_WAIT_S, FREE, LONGEST_WAIT_S, QUIET_S, Patience
from vxagent.core.switch import Draft
from vxagent.core.tables import (
    DeviceRow,
    FdbFlag,
    FdbRow,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    Row,
    RowKey,
    SegmentRow,
    Table,
    fdb_key,
)
from vxagent.datapath.base import Lease
from vxagent.datapath.fake_forwarding import Frame
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep
from vxagent.netlink.base import Inspection
from vxagent.runtime import audit
from vxagent.runtime.config import Config
from vxagent.runtime.loop import Agent

TAP0 = Device(ifname="tap0", ifindex=10, kind="tun")
TAP1 = Device(ifname="tap1", ifindex=11, kind="tun")
ETH1 = Device(ifname="eth1", ifindex=13, kind="veth")
ETH2 = Device(ifname="eth2", ifindex=14, kind="veth")
MAC = "02:00:00:00:00:99"
SOON_S = 5.0


def fill(draft: Draft) -> None:
    draft.add_segment(Segment(name="blue", tenant="acme", vlan=10))
    draft.attach_port(Port(id="vm0", ifname="tap0", segment="blue", ips=("10.0.0.1",), macs=("02:00:00:00:00:01",)))
    draft.attach_port(Port(id="vm1", ifname="tap1", segment="blue", storm_broadcast=100, dhcp_snoop=True))
    draft.add_uplink(Uplink(ifname="eth1"))
    draft.add_fdb(StaticEntry(segment="blue", mac=MAC, port="vm1"))


@pytest.fixture
def sim() -> Sim:
    made = Sim(TAP0, TAP1, ETH1, ETH2, overlay=Overlay(vtep="192.0.2.11", device="eth2"))
    made.change(fill)
    made.change(lambda draft: draft.add_segment(Segment(name="teal", tenant="acme", vni=5040, mtu=1450)))
    made.change(lambda draft: draft.add_vtep(Vtep(address="192.0.2.12", vnis=(5040,))))
    made.sync()
    return made


def look(sim: Sim) -> Sight:
    """All of it, as an audit looks that has never looked before."""
    datapath, state = sim.datapath, sim.switch.state
    wanted = {handle: ifindex for handle, (ifindex, _) in state.attached.items()}
    return Sight(
        rows={table: datapath.contents(table).rows() for table in Table},
        running=datapath.runs(wanted),
        xdp=datapath.xdp_at(wanted),
        refused=datapath.xdp_refused(),
        faults=tuple(datapath.faults()),
    )


def found(sim: Sim) -> list[Drift]:
    return examine(sim.switch.state, look(sim))


def only(sim: Sim) -> Drift:
    [drift] = found(sim)
    return drift


def mend(sim: Sim) -> list[Effect]:
    """Repair; return what was done. Afterwards all is right."""
    done = [drift.repair for drift in found(sim)]
    for effect in done:
        sim.executor.run([effect])
    sim.sync()
    assert found(sim) == []
    return done


def handle(sim: Sim, name: str) -> int:
    return sim.switch.state.numbers.number("port", name)


def a_row(sim: Sim, table: Table) -> tuple[RowKey, Row]:
    return next(item for item in sim.switch.state.rows.items() if item[0][0] is table)


# Rows


def test_a_switch_that_nobody_touches_has_no_drift(sim: Sim) -> None:
    assert found(sim) == []


def test_every_table_is_filled_here_but_that_of_prefixes(sim: Sim) -> None:
    filled = {table for table, _ in sim.switch.state.rows}
    assert set(Table) - filled == {Table.PREFIXES}


@pytest.mark.parametrize("table", [table for table in Table if table is not Table.PREFIXES])
def test_a_row_that_was_removed_is_put_back(sim: Sim, table: Table) -> None:
    rowkey, row = a_row(sim, table)
    before = dict(sim.datapath.table)
    del sim.datapath.table[rowkey]
    drift = only(sim)
    assert (drift.kind, drift.what) == (table, "was removed")
    assert mend(sim) == [PutRow(table=table, key=rowkey[1], row=row, old=None)]
    assert sim.datapath.table == before


def test_a_row_that_was_changed_is_put_right_and_what_was_changed_is_said(sim: Sim) -> None:
    key = handle(sim, "vm0")
    row = sim.datapath.table[Table.PORTS, key]
    assert isinstance(row, PortRow)
    changed = replace(row, ifindex=4711, state=PortMode(77))
    sim.datapath.table[Table.PORTS, key] = changed
    drift = only(sim)
    assert drift.name == f"ports[{key:#x}] of port vm0"
    assert drift.what == "ifindex was 4711 instead of 10, state was 77 instead of 1"
    assert mend(sim) == [PutRow(table=Table.PORTS, key=key, row=row, old=changed)]


STRANGE: dict[RowKey, Row] = {
    (Table.DEVICES, 4711): DeviceRow(ifindex=4711, port=1),
    (Table.FDB, fdb_key(1, 0x020000000777)): FdbRow(port=1, segment=1, origin=Origin.STATIC, flags=FdbFlag.LISTED),
    (Table.FDB, fdb_key(1, 0x020000000778)): FdbRow(port=1, segment=1, origin=Origin(9), flags=FdbFlag(0)),
    (Table.PORTS, 99): PortRow(
        ifindex=12,
        flags=PortFlag(0),
        state=PortMode.UP,
        handle=99,
        segment=1,
        counter=0,
        counter_none=0,
        max_macs=0,
    ),
}


@pytest.mark.parametrize("rowkey", STRANGE)
def test_a_row_that_somebody_wrote_is_removed(sim: Sim, rowkey: RowKey) -> None:
    sim.datapath.table[rowkey] = STRANGE[rowkey]
    assert only(sim).what == "belongs to nothing"
    assert mend(sim) == [DeleteRow(table=rowkey[0], key=rowkey[1], old=STRANGE[rowkey])]


def test_rows_go_before_others_come_and_programs_come_last(sim: Sim) -> None:
    del sim.datapath.table[a_row(sim, Table.SEGMENTS)[0]]
    del sim.datapath.table[a_row(sim, Table.SLOTS)[0]]
    sim.datapath.table.update(STRANGE)
    sim.datapath.detached.add(handle(sim, "vm0"))
    sim.datapath.lost.append(Fault(thing=Thing.PIN, name="v1/ports"))
    kinds = [(type(drift.repair), drift.kind) for drift in found(sim)]
    assert kinds == [
        (Mend, Thing.PIN),
        (DeleteRow, Table.DEVICES),
        (DeleteRow, Table.FDB),
        (DeleteRow, Table.FDB),
        (DeleteRow, Table.PORTS),
        (PutRow, Table.SEGMENTS),
        (PutRow, Table.SLOTS),
        (Attach, Thing.PROGRAM),
    ]


def test_a_table_that_was_not_read_has_no_drift(sim: Sim) -> None:
    sim.datapath.table.clear()
    assert examine(sim.switch.state, replace(look(sim), rows={})) == []


def test_what_the_data_plane_owns_is_no_drift(sim: Sim) -> None:
    sim.datapath.forward(11, Frame(src=0x020000000055, dst=0xFFFFFFFFFFFF))
    sim.datapath.lease(
        Lease(segment=1, port=handle(sim, "vm1"), address=ip_address("10.0.0.77"), mac=0x55, left_s=60.0)
    )
    assert sim.datapath.learned
    assert sim.datapath.leases()
    assert found(sim) == []


def test_tables_of_which_other_rows_are_expected_are_looked_at_anew(sim: Sim) -> None:
    before = sim.switch.state.rows
    assert tables_changed(before, before) == set()
    assert tables_changed(before, dict(before)) == set()
    sim.change(lambda draft: draft.set_segment("blue", mtu=1400))
    assert tables_changed(before, sim.switch.state.rows) == {Table.SEGMENTS}
    sim.change(lambda draft: draft.delete_fdb("blue", MAC))
    assert tables_changed(before, sim.switch.state.rows) == {Table.SEGMENTS, Table.FDB}


# Programs


def test_a_program_that_was_taken_off_runs_again(sim: Sim) -> None:
    at = handle(sim, "vm0")
    sim.datapath.detached.add(at)
    drift = only(sim)
    assert (drift.kind, drift.name, drift.what) == (Thing.PROGRAM, "of port vm0", "did not run on tap0")
    assert mend(sim) == [Attach(handle=at, ifindex=10, ifname="tap0")]


def test_xdp_that_was_taken_off_runs_again(sim: Sim) -> None:
    at = handle(sim, "vm0")
    assert sim.switch.state.xdp[at] == Xdp.SENDS | Xdp.RECEIVES
    sim.datapath.xdp_detached.add(at)
    assert only(sim).what == "on tap0: did not run"
    both = Xdp.SENDS | Xdp.RECEIVES
    assert mend(sim) == [SetXdp(handle=at, ifindex=10, ifname="tap0", xdp=both, old=Xdp.RECEIVES)]


@pytest.mark.parametrize("to", [0, 4711])
def test_frames_that_xdp_sends_elsewhere_go_where_they_should_again(sim: Sim, to: int) -> None:
    at = handle(sim, "vm1")
    sim.datapath.misled[at] = to
    assert only(sim).what == f"on tap1: frames went to ifindex {to} instead of 11 (0: none)"
    mend(sim)
    assert at not in sim.datapath.misled


def test_a_device_that_xdp_must_not_send_to_is_taken_out(sim: Sim) -> None:
    at = handle(sim, "eth1")
    sim.datapath.misled[at] = 13
    [effect] = mend(sim)
    assert effect == SetXdp(handle=at, ifindex=13, ifname="eth1", xdp=Xdp.NONE, old=Xdp.RECEIVES)


def test_a_device_that_does_not_take_xdp_has_no_drift(sim: Sim) -> None:
    sim.datapath.refused[handle(sim, "vm0")] = "somebody else's XDP program runs there"
    assert found(sim) == []


# Devices


def test_a_port_on_which_the_host_speaks_again_is_made_quiet(sim: Sim) -> None:
    sim.plug(replace(sim.links.by_name["tap0"], arp=True, ipv6=True))
    drift = only(sim)
    assert (drift.kind, drift.name, drift.what) == (Thing.DEVICE, "tap0", "arp was on, ipv6 was on")
    assert mend(sim) == [SetDevice(ifindex=10, ifname="tap0", arp=False, ipv6=False)]


def test_an_uplink_that_does_not_hear_all_frames_hears_them_again(sim: Sim) -> None:
    sim.plug(replace(sim.links.by_name["eth1"], promisc=False))
    assert only(sim).what == "promisc was off"
    assert mend(sim) == [SetDevice(ifindex=13, ifname="eth1", promisc=True)]


def test_what_the_host_does_with_its_underlay_is_no_drift(sim: Sim) -> None:
    sim.plug(replace(sim.links.by_name["eth2"], promisc=True, up=False, arp=False, mtu=9000))
    assert found(sim) == []


def test_a_program_that_is_gone_from_the_underlay_is_put_back(sim: Sim) -> None:
    at = handle(sim, "underlay/eth2")
    sim.datapath.detached.add(at)
    assert only(sim).what == "did not run on eth2"
    assert mend(sim) == [Attach(handle=at, ifindex=14, ifname="eth2")]


def test_a_device_that_is_down_is_left_so(sim: Sim) -> None:
    sim.plug(replace(sim.links.by_name["tap0"], up=False))
    assert found(sim) == []
    assert sim.switch.state.port_state("vm0")[0] is PortState.DOWN


# What the data path lost


@pytest.mark.parametrize("thing", [Thing.BPFFS, Thing.PIN, Thing.TAIL_CALL])
def test_what_the_data_path_lost_is_mended(sim: Sim, thing: Thing) -> None:
    sim.datapath.lost.append(Fault(thing=thing, name="x"))
    assert only(sim).kind is thing
    assert mend(sim) == [Mend(thing=thing, name="x")]


# What does not wait


def lose(table: Table) -> Callable[[Sim], None]:
    def do(sim: Sim) -> None:
        del sim.datapath.table[a_row(sim, table)[0]]

    return do


def lose_own(thing: Thing) -> Callable[[Sim], None]:
    return lambda sim: sim.datapath.lost.append(Fault(thing=thing, name="x"))


URGENT: dict[str, Callable[[Sim], None]] = {
    **{table: lose(table) for table in Table if table not in HARMLESS | {Table.PREFIXES}},
    "a program": lambda sim: sim.datapath.detached.add(handle(sim, "vm0")),
    "XDP to another device": lambda sim: sim.datapath.misled.update({handle(sim, "vm1"): 4711}),
    "a tail call": lose_own(Thing.TAIL_CALL),
    "a host that speaks": lambda sim: sim.plug(replace(sim.links.by_name["tap0"], arp=True)),
}
PATIENT: dict[str, Callable[[Sim], None]] = {
    **{table: lose(table) for table in (Table.SETTINGS, Table.LIMITS)},
    "XDP": lambda sim: sim.datapath.xdp_detached.add(handle(sim, "vm0")),
    "XDP to nowhere": lambda sim: sim.datapath.misled.update({handle(sim, "vm1"): 0}),
    "a pin": lose_own(Thing.PIN),
    "the bpffs": lose_own(Thing.BPFFS),
    "an uplink that is deaf": lambda sim: sim.plug(replace(sim.links.by_name["eth1"], promisc=False)),
}


@pytest.mark.parametrize("what", [*URGENT, *PATIENT])
def test_what_may_leak_does_not_wait(sim: Sim, what: str) -> None:
    (URGENT | PATIENT)[what](sim)
    assert only(sim).urgent is (what in URGENT)


# Patience


def test_what_drifts_again_and_again_has_to_wait_longer_and_longer() -> None:
    patience = Patience()
    now, made = 0.0, []
    for _ in range(20_000):
        if patience.attempt("x", now):
            made.append(now)
        now += 1.0
    waits = [after - before for before, after in pairwise(made)]
    assert waits[: FREE - 1] == [1.0] * (FREE - 1)
    assert waits[FREE - 1 : FREE + 2] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert set(waits[-10:]) == {LONGEST_WAIT_S}


def test_what_is_urgent_never_waits_and_is_counted() -> None:
    patience = Patience()
    assert [patience.attempt("x", float(now), urgent=True) for now in range(10)] == list(range(1, 11))
    assert patience.attempt("y", 0.0) == 1
    [restless] = patience.restless(12.0)
    assert (restless.thing, restless.attempts, restless.seen_s, restless.wait_s) == ("x", 10, 3.0, None)


def test_what_waits_says_how_long() -> None:
    patience = Patience()
    for now in range(FREE):
        patience.attempt("x", float(now))
    assert patience.attempt("x", 5.0) == 0
    [restless] = patience.restless(6.0)
    assert (restless.attempts, restless.seen_s, restless.wait_s) == (FREE, 1.0, FREE - 1 + FIRST_WAIT_S - 6.0)


def test_it_can_go_on_for_months() -> None:
    patience = Patience()
    for n in range(2000):
        assert patience.attempt("x", n * LONGEST_WAIT_S) == n + 1
    assert patience.attempt("x", 2000 * LONGEST_WAIT_S - 1) == 0


def test_things_wait_apart_and_what_was_quiet_for_long_is_new() -> None:
    patience = Patience()
    for n in range(FREE):
        assert patience.attempt("x", 0.0) == n + 1
    assert patience.attempt("x", 0.0) == 0
    assert patience.attempt("y", 0.0) == 1
    patience.forget(QUIET_S)
    assert patience.attempt("x", FIRST_WAIT_S - 1) == 0
    patience.forget(FIRST_WAIT_S + QUIET_S)
    assert patience.attempt("x", FIRST_WAIT_S + QUIET_S) == 1


# The agent


def with_agent(work: Callable[[Agent, FakeHost], object], *devices: Device) -> FakeHost:
    """An agent with ports on these devices; `work` gets it."""
    host = FakeHost(devices or (TAP0, TAP1, ETH1))
    host.config = Config(host="hv1", audit_s=1)

    async def life() -> None:
        agent = host.agent()
        await agent.start()
        try:
            await agent.change(fill)
            await agent.auditor.audit()
            assert agent.auditor.found.total() == 0
            result = work(agent, host)
            if asyncio.iscoroutine(result):
                await result
        finally:
            await agent.stop()

    asyncio.run(life())
    return host


def counted(agent: Agent) -> dict[str, tuple[int, int]]:
    """Kind → how often found, how often repaired."""
    auditor = agent.auditor
    return {str(kind): (number, auditor.repaired[kind]) for kind, number in auditor.found.items()}


def port_handle(agent: Agent, name: str) -> int:
    return agent.switch.state.numbers.number("port", name)


def test_an_audit_repairs_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        rows = dict(host.datapath.table)
        del host.datapath.table[Table.PORTS, port_handle(agent, "vm0")]
        host.datapath.detached.add(port_handle(agent, "vm1"))
        await agent.auditor.audit()
        assert host.datapath.table == rows
        assert host.datapath.detached == set()
        assert counted(agent) == {"ports": (1, 1), "program": (1, 1)}
        await agent.auditor.audit()
        assert counted(agent) == {"ports": (1, 1), "program": (1, 1)}

    with caplog.at_level(logging.WARNING):
        with_agent(work)
    assert [record.message for record in caplog.records] == [
        "drift: ports ports[0x1] of port vm0 was removed: put right",
        "drift: program of port vm1 did not run on tap1: put right",
    ]


def test_an_audit_goes_by_the_clock() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        rows = dict(host.datapath.table)
        host.datapath.table.clear()
        deadline = time.monotonic() + SOON_S
        while host.datapath.table != rows:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    with_agent(work)


def test_changes_are_no_drift() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        for mtu in (1400, 1300, 1500):
            await agent.change(lambda draft, mtu=mtu: draft.set_segment("blue", mtu=mtu))  # type: ignore[misc]  # bound
            await agent.auditor.audit()
        host.links.remove("tap0")
        await agent.auditor.audit()
        assert agent.auditor.found.total() == 0

    with_agent(work)


def test_drift_after_a_change_back_is_found_though_the_bytes_are_those_that_were_right() -> None:
    """The table holds what it held at the last look, but something else is wanted by now."""

    async def work(agent: Agent, host: FakeHost) -> None:
        before = dict(host.datapath.table)
        await agent.change(lambda draft: draft.set_segment("blue", mtu=1400))
        host.datapath.table.clear()
        host.datapath.table.update(before)
        await agent.auditor.audit()
        row = next(row for row in host.datapath.table.values() if isinstance(row, SegmentRow))
        assert row.mtu == 1400

    with_agent(work)


def test_a_program_that_went_with_its_device_is_no_drift() -> None:
    """Its event is on its way."""

    async def work(agent: Agent, host: FakeHost) -> None:
        device = host.links.by_name.pop("tap0")  # without an event
        host.datapath.programs = {h: i for h, i in host.datapath.programs.items() if i != device.ifindex}
        await agent.auditor.audit()
        assert agent.auditor.found.total() == 0
        assert agent.switch.state.port_state("vm0")[0] is PortState.PENDING

    with_agent(work)


def test_a_stranger_that_has_the_number_of_a_device_that_went_is_left_alone() -> None:
    """`ip link del tap0; ip link add other index 10`, and the events were lost."""

    async def work(agent: Agent, host: FakeHost) -> None:
        del host.links.by_name["tap0"]
        stranger = Device(ifname="other", ifindex=10, kind="veth", mac="02:00:00:00:77:01")
        host.links.by_name["other"] = stranger
        host.datapath.detached.add(port_handle(agent, "vm0"))
        await agent.auditor.audit()
        assert agent.switch.state.port_state("vm0")[0] is PortState.PENDING
        assert host.links.by_name["other"] == stranger
        assert (Table.DEVICES, 10) not in host.datapath.table
        row = host.datapath.table[Table.PORTS, port_handle(agent, "vm0")]
        assert isinstance(row, PortRow)
        assert row.ifindex == 0

    with_agent(work)


def test_a_device_made_anew_with_name_and_number_of_the_old_one_is_taken_anew() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        host.links.by_name["tap0"] = replace(TAP0, mac="02:00:00:00:77:02")
        host.datapath.detached.add(port_handle(agent, "vm0"))
        await agent.auditor.audit()
        assert agent.switch.state.port_state("vm0")[0] is PortState.UP
        assert host.datapath.detached == set()
        device = host.links.by_name["tap0"]
        assert (device.arp, device.ipv6) == (False, False)
        assert agent.auditor.found.total() == 0

    with_agent(work)


def test_many_programs_are_put_back_in_turns_and_commands_come_in_between() -> None:
    many = 3 * audit.BATCH + 1
    devices = [Device(ifname=f"tap{n}", ifindex=100 + n, kind="tun") for n in range(many)]

    async def work(agent: Agent, host: FakeHost) -> None:
        def attach(draft: Draft) -> None:
            for n in range(2, many):
                draft.attach_port(Port(id=f"tap{n}", ifname=f"tap{n}", segment="blue"))

        await agent.change(attach)
        host.datapath.detached |= agent.switch.state.attached.keys()
        left: list[int] = []

        async def command() -> None:
            await agent.change(lambda draft: draft.set_segment("blue", mtu=1400))
            left.append(len(host.datapath.detached))

        auditing = asyncio.create_task(agent.auditor.audit())
        await asyncio.sleep(0)
        await command()
        await auditing
        assert left[0] > 0
        assert host.datapath.detached == set()
        assert counted(agent)["program"] == (many, many)

    with_agent(work, *devices)


def test_what_cannot_be_put_right_is_told_a_few_times_and_keeps_nothing_else_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        host.datapath.missing.add(10)
        host.datapath.detached |= {port_handle(agent, "vm0"), port_handle(agent, "vm1")}
        for _ in range(10):
            await agent.auditor.audit()
        assert host.datapath.detached == {port_handle(agent, "vm0")}
        assert counted(agent) == {"program": (11, 1)}

    with caplog.at_level(logging.WARNING):
        with_agent(work)
    told = [record.message for record in caplog.records if "vm0" in record.message]
    assert len(told) == FREE
    assert told[0] == "drift: program of port vm0 did not run on tap0: cannot be put right: device tap0 is gone"
    assert "again and again" in told[-1]


@pytest.mark.parametrize(
    ("table", "repaired", "how"),
    [
        (Table.LIMITS, FREE, "at longer and longer intervals"),
        (Table.PORTS, 6, "at every look, without a line"),
    ],
)
def test_nobody_is_fought_but_where_frames_may_leak(
    table: Table, repaired: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        key = (table, port_handle(agent, "vm1"))
        for _ in range(6):
            host.datapath.table.pop(key, None)
            await agent.auditor.audit()
        assert counted(agent) == {str(table): (6, repaired)}
        assert agent.auditor.postponed.total() == 6 - repaired
        [restless] = agent.auditor.restless()
        assert restless.thing.endswith(" of port vm1")
        assert (restless.wait_s is None) == (table is Table.PORTS)

    with caplog.at_level(logging.WARNING):
        with_agent(work)
    told = [record.message for record in caplog.records]
    assert len(told) == FREE
    assert [how in line for line in told] == [False] * (FREE - 1) + [True]


def test_programs_that_cannot_be_put_back_take_a_batch_a_look_and_keep_no_other_from_it() -> None:
    many = 2 * audit.BATCH + 1
    devices = [Device(ifname=f"tap{n}", ifindex=100 + n, kind="tun") for n in range(many)]

    async def work(agent: Agent, host: FakeHost) -> None:
        def attach(draft: Draft) -> None:
            for n in range(2, many):
                draft.attach_port(Port(id=f"tap{n}", ifname=f"tap{n}", segment="blue"))

        await agent.change(attach)
        last = agent.switch.state.numbers.number("port", f"tap{many - 1}")
        host.datapath.missing |= {device.ifindex for device in devices[:-1]}
        host.datapath.detached |= agent.switch.state.attached.keys()
        there = []
        for _ in range(3):
            await agent.auditor.audit()
            there.append(last not in host.datapath.detached)
        assert there == [False, False, True]

    with_agent(work, *devices)


def test_programs_of_others_are_told_once_counted_and_left(caplog: pytest.LogCaptureFixture) -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        host.links.inspections[13] = Inspection(xdp_program=77, filters=("bpf theirs",))
        host.datapath.others[10] = [78]
        for _ in range(3):
            await agent.auditor.audit()
        assert agent.auditor.strangers.by_hook() == {"xdp": 1, "tcx": 1, "clsact": 1}
        host.links.inspections.clear()
        await agent.auditor.audit()
        assert agent.auditor.strangers.by_hook() == {"xdp": 0, "tcx": 1, "clsact": 0}
        assert agent.auditor.found.total() == 0

    with caplog.at_level(logging.WARNING):
        with_agent(work)
    assert [record.message for record in caplog.records] == [
        "somebody else's tcx program 78 on device tap0; it is left there",
        "somebody else's clsact filter bpf theirs on device eth1; it is left there",
        "somebody else's xdp program 77 on device eth1; it is left there",
    ]


def test_our_own_xdp_program_is_no_stranger() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        host.links.inspections[10] = Inspection(xdp_program=5)
        await agent.auditor.audit()
        assert agent.auditor.strangers.by_hook()["xdp"] == 0

    with_agent(work)


def test_xdp_whose_place_somebody_has_taken_is_told_and_left() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        at = port_handle(agent, "vm0")
        host.datapath.xdp_detached.add(at)
        host.datapath.refuses.add(at)
        host.links.inspections[10] = Inspection(xdp_program=77)
        for _ in range(3):
            await agent.auditor.audit()
        assert counted(agent) == {"xdp": (1, 0)}

    with_agent(work)


def test_xdp_is_back_once_the_stranger_that_had_its_place_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        at = port_handle(agent, "vm0")
        host.datapath.xdp_detached.add(at)
        host.datapath.refuses.add(at)
        host.links.inspections[10] = Inspection(xdp_program=77)
        for _ in range(3):
            await agent.auditor.audit()
        assert counted(agent) == {"xdp": (1, 0)}
        host.links.inspections.clear()
        host.datapath.refuses.clear()
        await agent.auditor.audit()  # sees that it is gone
        for _ in range(3):
            await agent.auditor.audit()
        assert counted(agent) == {"xdp": (2, 1)}
        assert host.datapath.refused == {}

    with caplog.at_level(logging.WARNING):
        with_agent(work)
    assert caplog.records[-1].message == "drift: xdp of port vm0 on tap0: did not run: put right"


def test_the_next_stranger_is_left_as_well() -> None:
    """He comes between the look that found the place free and the next one."""

    async def work(agent: Agent, host: FakeHost) -> None:
        at = port_handle(agent, "vm0")
        host.datapath.xdp_detached.add(at)
        host.datapath.refuses.add(at)
        await agent.auditor.audit()
        host.links.inspections[10] = Inspection(xdp_program=78)
        for _ in range(3):
            await agent.auditor.audit()
        assert counted(agent) == {"xdp": (2, 0)}
        assert agent.auditor.strangers.by_hook()["xdp"] == 1

    with_agent(work)


def test_a_device_that_takes_no_xdp_for_another_reason_is_not_asked_again() -> None:
    async def work(agent: Agent, host: FakeHost) -> None:
        host.datapath.refused[port_handle(agent, "vm0")] = "its MTU is too large for native XDP"
        for _ in range(3):
            await agent.auditor.audit()
        assert counted(agent) == {}

    with_agent(work)


# Devices that change places


def test_two_devices_that_swap_their_names_swap_their_ports_and_keep_quiet() -> None:
    sim = Sim(TAP0, TAP1, ETH1)
    sim.change(fill)
    sim.sync()
    zero, one = sim.links.by_name["tap0"], sim.links.by_name["tap1"]
    sim.links.by_name |= {"tap0": replace(one, ifname="tap0"), "tap1": replace(zero, ifname="tap1")}

    def swapped(draft: Draft) -> None:
        draft.link_changed(10, sim.links.by_name["tap1"])
        draft.link_changed(11, sim.links.by_name["tap0"])

    sim.change(swapped)
    assert sim.datapath.programs[handle(sim, "vm0")] == 11
    assert sim.datapath.programs[handle(sim, "vm1")] == 10
    for name in ("tap0", "tap1"):
        device = sim.links.by_name[name]
        assert (device.up, device.arp, device.ipv6) == (True, False, False)
    sim.sync()
    assert found(sim) == []
    sim.change(Draft.take_off)
    for name in ("tap0", "tap1"):
        assert (sim.links.by_name[name].arp, sim.links.by_name[name].ipv6) == (True, True)

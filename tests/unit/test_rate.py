"""Rates are read as people write them and shown in one form, and become rows of `limits`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sim import Sim
from vxagent.core.effects import ClearCounters
from vxagent.core.switch import Switch
from vxagent.core.tables import LimitsRow, PortFlag, PortRow, Table
from vxagent.errors import Invalid
from vxagent.model.ids import LEARN_RATE_UPLINK
from vxagent.model.port import DEFAULT_LEARN_RATE, Port, Uplink
from vxagent.model.rate import BITS_MAX, BITS_MIN, PACKETS_MAX, PACKETS_MIN, Rate
from vxagent.model.segment import Segment

rates = st.builds(
    Rate, bits=st.just(0) | st.integers(BITS_MIN, BITS_MAX), packets=st.just(0) | st.integers(PACKETS_MIN, PACKETS_MAX)
).filter(lambda rate: rate != Rate())


@pytest.mark.parametrize(
    ("text", "bits", "packets", "shown"),
    [
        ("100Mbit", 100_000_000, 0, "100Mbit"),
        ("1Gbit", 10**9, 0, "1Gbit"),
        ("1000mbit", 10**9, 0, "1Gbit"),
        ("1.5Gbit", 1_500_000_000, 0, "1500Mbit"),
        ("500kbit", 500_000, 0, "500kbit"),
        ("64000", 64_000, 0, "64kbit"),
        ("1234bit", 1_234, 0, "1234bit"),
        ("1Tbit", 10**12, 0, "1Tbit"),
        ("20kpps", 0, 20_000, "20kpps"),
        ("1000pps", 0, 1_000, "1kpps"),
        ("0.5 Mpps", 0, 500_000, "500kpps"),
        ("1Gbit,100kpps", 10**9, 100_000, "1Gbit,100kpps"),
        ("7PPS, 1KBIT", 1_000, 7, "1kbit,7pps"),
    ],
)
def test_a_rate_is_read_with_decimal_units(text: str, bits: int, packets: int, shown: str) -> None:
    rate = Rate.parse("rate_in", text)
    assert (rate, str(rate)) == (Rate(bits=bits, packets=packets), shown)


@given(rates)
def test_a_rate_that_is_shown_is_read_back(rate: Rate) -> None:
    assert Rate.parse("rate_in", str(rate)) == rate


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be bit/s such as 100Mbit"),
        ("fast", "must be bit/s such as 100Mbit"),
        ("-1", "must be bit/s such as 100Mbit"),
        ("100Mb", "must be bit/s such as 100Mbit"),
        ("100MBps", "must be bit/s such as 100Mbit"),
        ("1e9", "must be bit/s such as 100Mbit"),
        ("1Gbit,", "must be bit/s such as 100Mbit"),
        ("٣kbit", "must be bit/s such as 100Mbit"),
        ("1Gbit,1Mbit", "gives bits/s twice"),
        ("1pps,1kpps", "gives packets/s twice"),
        ("999", "must be whole and 1kbit to 1Tbit"),
        ("0", "must be whole and 1kbit to 1Tbit"),
        ("1001Gbit", "must be whole and 1kbit to 1Tbit"),
        ("1000.5bit", "must be whole and 1kbit to 1Tbit"),
        ("0pps", "must be whole and 1pps to 1000Mpps"),
        ("1.5pps", "must be whole and 1pps to 1000Mpps"),
        ("1001Mpps", "must be whole and 1pps to 1000Mpps"),
    ],
)
def test_what_is_no_rate_is_refused(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        Rate.parse("rate_in", text)
    assert str(refused.value).startswith(f"rate_in {text!r}: ")


@pytest.mark.parametrize("field", ["storm_broadcast", "storm_multicast", "storm_unknown"])
@pytest.mark.parametrize("packets", [0, -1, PACKETS_MAX + 1])
def test_a_storm_limit_out_of_range_is_refused(field: str, packets: int) -> None:
    with pytest.raises(Invalid, match=rf"{field} .* must be 1 to 1000000000"):
        Port(id="tap0", ifname="tap0", segment="blue", **{field: packets})  # type: ignore[arg-type]  # a field by its name


# --- rows -----------------------------------------------------------------------------------------


@pytest.fixture
def sim() -> Sim:
    """Segment blue with port tap0, which has no limits and no device."""
    sim = Sim()
    sim.change(lambda draft: draft.add_segment(Segment(name="blue", tenant="acme")))
    sim.change(lambda draft: draft.attach_port(Port(id="tap0", ifname="tap0", segment="blue")))
    return sim


def rows(sim: Sim) -> tuple[LimitsRow, PortFlag]:
    """What the kernel holds of tap0: its limits but that of learning, and which stages look at them."""
    handle = sim.switch.state.handle_of_port("tap0")
    port, limits = sim.datapath.table[Table.PORTS, handle], sim.datapath.table[Table.LIMITS, handle]
    assert isinstance(port, PortRow)
    assert isinstance(limits, LimitsRow)
    assert limits.learn == DEFAULT_LEARN_RATE
    return replace(limits, learn=0), port.flags & (PortFlag.LIMITED_IN | PortFlag.LIMITED_OUT)


def test_a_port_without_limits_has_no_flag(sim: Sim) -> None:
    assert rows(sim) == (LimitsRow(), PortFlag(0))


def test_a_port_may_learn_at_any_rate_and_then_has_no_row(sim: Sim) -> None:
    handle = sim.switch.state.handle_of_port("tap0")
    sim.change(lambda draft: draft.set_port("tap0", learn_rate=7))
    assert sim.datapath.table[Table.LIMITS, handle] == LimitsRow(learn=7)
    sim.change(lambda draft: draft.set_port("tap0", learn_rate=None))
    assert (Table.LIMITS, handle) not in sim.datapath.table


def test_an_uplink_has_a_rate_of_learning_of_its_own(sim: Sim) -> None:
    sim.change(lambda draft: draft.add_uplink(Uplink(ifname="eth1")))
    handle = sim.switch.state.handle_of_uplink("eth1")
    assert sim.datapath.table[Table.LIMITS, handle] == LimitsRow(learn=LEARN_RATE_UPLINK)


@pytest.mark.parametrize(
    ("changes", "row", "flags"),
    [
        ({"rate_in": Rate(bits=10**6, packets=5)}, LimitsRow(in_bits=10**6, in_packets=5), PortFlag.LIMITED_IN),
        ({"rate_out": Rate(bits=10**6, packets=5)}, LimitsRow(out_bits=10**6, out_packets=5), PortFlag.LIMITED_OUT),
        ({"rate_out": Rate(packets=5)}, LimitsRow(out_packets=5), PortFlag.LIMITED_OUT),
        ({"storm_broadcast": 1}, LimitsRow(broadcast=1), PortFlag.LIMITED_IN),
        ({"storm_multicast": 2}, LimitsRow(multicast=2), PortFlag.LIMITED_IN),
        ({"storm_unknown": 3}, LimitsRow(unknown=3), PortFlag.LIMITED_IN),
        (
            {"rate_in": Rate(bits=10**6), "rate_out": Rate(bits=10**7), "storm_unknown": 3},
            LimitsRow(in_bits=10**6, out_bits=10**7, unknown=3),
            PortFlag.LIMITED_IN | PortFlag.LIMITED_OUT,
        ),
    ],
)
def test_limits_are_set_and_cleared_live(
    sim: Sim, changes: dict[str, Rate | int], row: LimitsRow, flags: PortFlag
) -> None:
    sim.change(lambda draft: draft.set_port("tap0", **changes))
    assert rows(sim) == (row, flags)
    sim.change(lambda draft: draft.set_port("tap0", **dict.fromkeys(changes)))
    assert rows(sim) == (LimitsRow(), PortFlag(0))


def test_limits_survive_a_restart_and_a_reboot(sim: Sim) -> None:
    limits = {"rate_in": Rate(bits=10**6), "rate_out": Rate(packets=9), "storm_broadcast": 7}
    sim.change(lambda draft: draft.set_port("tap0", **limits))
    before = rows(sim)
    sim.restart()
    assert rows(sim) == before
    sim.reboot()
    assert rows(sim) == before
    port = Switch(sim.store.load()).state.ports["tap0"]
    assert (port.rate_in, port.rate_out, port.storm_broadcast) == tuple(limits.values())


def test_a_port_that_a_version_without_limits_saved_has_none(sim: Sim) -> None:
    documents = sim.store.load()
    for field in ("rate_in", "rate_out", "storm_broadcast", "storm_multicast", "storm_unknown", "learn_rate"):
        del documents["port", "tap0"][field]
    assert Switch(documents).state.ports["tap0"] == sim.switch.state.ports["tap0"]


def test_limits_go_with_their_port_and_buckets_are_cleared(sim: Sim) -> None:
    sim.change(lambda draft: draft.set_port("tap0", rate_in=Rate(bits=10**6)))
    handle = sim.switch.state.handle_of_port("tap0")
    draft = sim.switch.draft()
    draft.detach_port("tap0")
    plan = draft.plan()
    assert any(isinstance(effect, ClearCounters) and effect.port == handle for effect in plan.effects)
    sim.executor.run(plan.effects)
    assert (Table.LIMITS, handle) not in sim.datapath.table

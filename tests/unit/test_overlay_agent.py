"""An agent whose config has an [overlay]: how it starts and reloads, what it says, and what it shows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.agents import FakeHost, ServedHost
from support.overlay_sim import (
    ETH1,
    ETH2,
    FURTHER,
    HIGHER,
    LOWER,
    OVERLAY,
    OWN,
    REMOTE,
    REMOTE_MAC,
    TAP0,
    TAP1,
    TAP2,
    build,
    handle,
    make,
)
from support.sim import Sim
from vxagent.core.state import State
from vxagent.datapath.abi import EventType, Reason
from vxagent.datapath.base import Drop, Event, Group, Multicast, Traffic
from vxagent.datapath.fake_forwarding import Frame
from vxagent.errors import Conflict
from vxagent.model.device import Device
from vxagent.model.port import Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep
from vxagent.netlink.base import Inspection
from vxagent.protocol.answers import GroupView, OverlayView
from vxagent.runtime import views
from vxagent.runtime.config import Config
from vxagent.runtime.doctor import SwitchFacts, judge_switch
from vxagent.runtime.findings import Level
from vxagent.runtime.journal import describe
from vxagent.runtime.loop import Agent
from vxagent.runtime.metrics import create_metrics_app
from vxagent.runtime.named import NOBODY, by_handle
from vxagent.runtime.overlay import overlay_view, vtep_views
from vxagent_cli.app import run

DEVICES = (TAP0, TAP1, TAP2, ETH1, ETH2)
SOON_S = 5.0


def play(host: FakeHost, work: Callable[[Agent], Awaitable[None]], overlay: Overlay | None = OVERLAY) -> None:
    """Start an agent with this overlay, do something, and stop it."""

    async def main() -> None:
        agent = host.agent()
        await agent.start()
        try:
            await work(agent)
        finally:
            await agent.stop()

    host.config = replace(host.config, overlay=overlay)
    asyncio.run(main())


# --- starting and reloading ----------------------------------------------------------------------


def test_an_agent_takes_the_underlay_and_leaves_it_as_it_is() -> None:
    host = FakeHost(DEVICES)

    async def work(agent: Agent) -> None:
        assert ETH1.ifindex in host.datapath.attached().values()
        assert overlay_view(agent.switch.state) == OverlayView(OWN, "eth1", PortState.UP, "")

    play(host, work)
    assert host.links.by_name["eth1"] == ETH1


def test_reload_takes_another_overlay_and_none() -> None:
    host = FakeHost(DEVICES)

    async def work(agent: Agent) -> None:
        await agent.change(build)
        host.config = replace(host.config, overlay=Overlay(vtep="192.0.2.2", device="eth2"))
        await agent.reload()
        assert agent.switch.state.overlay == host.config.overlay
        assert host.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=0xFFFFFFFFFFFF)).copies
        host.config = replace(host.config, overlay=None)
        await agent.reload()
        assert agent.switch.state.overlay is None
        assert ETH1.ifindex not in host.datapath.attached().values()

    play(host, work)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (Overlay(vtep=HIGHER, device="eth1"), f"{HIGHER} is this host's own VTEP; `vxagent vtep del {HIGHER}`"),
        (Overlay(vtep="2001:db8::b", device="eth1"), f"{HIGHER} is IPv4, this host's overlay IPv6"),
        (Overlay(vtep=OWN, device="tap0"), r"\[overlay\] names device tap0, which is port tap0"),
    ],
)
def test_reload_refuses_an_overlay_that_does_not_go_with_what_is_desired(overlay: Overlay, message: str) -> None:
    host = FakeHost(DEVICES)

    async def work(agent: Agent) -> None:
        await agent.change(build)
        rows, reloads = host.datapath.rows(), host.datapath.reloads
        host.config = replace(host.config, overlay=overlay)
        with pytest.raises(Conflict, match=message):
            await agent.reload()
        assert (host.datapath.rows(), host.datapath.reloads) == (rows, reloads)
        assert agent.config.overlay == OVERLAY

    play(host, work)


def test_an_agent_starts_all_the_same_and_forwards_what_it_can() -> None:
    host = FakeHost(DEVICES)

    async def fill(agent: Agent) -> None:
        await agent.change(build)

    async def work(agent: Agent) -> None:
        state = agent.switch.state
        assert state.overlay_state() == (PortState.PENDING, "device tap0 is port tap0; `vxagent port detach tap0`")
        assert state.port_state("tap0") == (PortState.UP, "")
        assert host.datapath.forward(TAP1.ifindex, Frame(src=REMOTE, dst=0xFFFFFFFFFFFF)).copies
        await agent.change(lambda draft: draft.detach_port("tap0"))  # which sets it down; then it is free
        async with asyncio.timeout(SOON_S):
            while agent.switch.state.overlay_state()[0] is not PortState.DOWN:
                await asyncio.sleep(0.01)

    play(host, fill, overlay=None)
    play(host, work, overlay=Overlay(vtep=OWN, device="tap0"))


def test_an_underlay_that_cannot_be_attached_keeps_nothing_else_from_it() -> None:
    host = FakeHost(DEVICES)
    host.datapath.missing.add(ETH1.ifindex)

    async def work(agent: Agent) -> None:
        await agent.change(build)
        state = agent.switch.state
        assert state.overlay_state() == (PortState.PENDING, "device eth1 could not be attached")
        assert state.port_state("tap0") == (PortState.UP, "")
        host.datapath.missing.clear()
        await agent.reload()
        assert agent.switch.state.overlay_state() == (PortState.UP, "")

    play(host, work)


def test_what_is_wrong_is_said_at_the_start_once_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost(DEVICES)

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "vxagent.runtime.overlay"]
        caplog.clear()
        return found

    async def fill(agent: Agent) -> None:
        await agent.change(build)
        assert lines() == []

    async def work(agent: Agent) -> None:
        [line] = lines()
        assert line.startswith("segment blue has MTU 1450, the overlay room for 1350 bytes on device eth1")
        assert "vxagent segment set blue --mtu 1350" in line
        await agent.reload()
        assert lines() == []
        await agent.change(lambda draft: draft.set_segment("blue", mtu=1350))
        await agent.reload()
        [line] = lines()
        assert line.startswith("no longer so: segment blue has MTU 1450")

    caplog.set_level(logging.INFO)
    play(host, fill)
    host.links.put(replace(ETH1, mtu=1400))
    play(host, work)


# --- doctor --------------------------------------------------------------------------------------


def judged(sim: Sim, **inspections: Inspection) -> list[tuple[Level, str, str]]:
    state = sim.switch.state
    seen = {state.devices[name].ifindex: inspection for name, inspection in inspections.items()}
    findings = judge_switch(SwitchFacts(state=state, inspections=seen))
    return [(finding.level, finding.what, finding.mend) for finding in findings if finding.level is not Level.OK]


def test_an_overlay_in_order_is_no_finding() -> None:
    assert judged(make()) == []


@pytest.mark.parametrize(
    ("underlay", "level", "what", "mend"),
    [
        (replace(ETH1, up=False), Level.WARN, "underlay eth1 is down: device eth1 is down", "ip link set dev eth1 up"),
        (replace(ETH1, master="br0"), Level.WARN, "underlay eth1 is pending: device eth1 is enslaved", "name br0 in"),
        (replace(ETH1, addresses=()), Level.BAD, "no other host reaches it", f"ip address add {OWN}/24 dev eth1"),
    ],
)
def test_what_is_wrong_with_an_overlay_is_a_finding(underlay: Device, level: Level, what: str, mend: str) -> None:
    [found] = judged(make(underlay=underlay))
    assert found[0] is level
    assert what in found[1]
    assert mend in found[2]


def test_a_segment_that_is_too_large_is_a_finding() -> None:
    sim = make()
    sim.plug(replace(ETH1, mtu=1499))
    [(level, what, mend)] = judged(sim)
    assert (level, what.partition(",")[0]) == (Level.WARN, "segment blue has MTU 1450")
    assert mend.startswith("`vxagent segment set blue --mtu 1449`")


def test_an_underlay_that_is_not_there_is_a_finding() -> None:
    sim = make()
    sim.unplug("eth1")
    assert judged(sim) == [(Level.WARN, "underlay eth1 is pending: device eth1 is not there", "")]


def test_somebody_elses_filter_on_the_underlay_is_a_finding_once() -> None:
    sim = make()
    [found] = judged(sim, eth1=Inspection(filters=("bpf x",)))
    assert "device eth1 has a tc filter of somebody else" in found[1]
    sim.change(lambda d: d.add_uplink(Uplink(ifname="eth1")))
    sim.settle()
    assert len(judged(sim, eth1=Inspection(filters=("bpf x",)))) == 1


# --- views ---------------------------------------------------------------------------------------


@pytest.fixture
def sim() -> Sim:
    return make()


def drop(sim: Sim, owner: str, reason: Reason) -> None:
    sim.datapath.drop_counts[handle(sim, owner), sim.switch.state.handle_of_segment("blue"), int(reason)] = 7


def test_an_fdb_entry_behind_a_vtep_has_its_address_and_no_port(sim: Sim) -> None:
    sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=0xFFFFFFFFFFFF))
    [[entry]] = list(views.fdb_views(sim.switch.state, sim.datapath, "blue"))
    assert (entry.mac, entry.port, entry.vtep, entry.origin) == (REMOTE_MAC, None, HIGHER, "learned")


def test_drops_of_a_vtep_have_its_address_those_of_the_underlay_its_device(sim: Sim) -> None:
    drop(sim, f"vtep/{HIGHER}", Reason.MTU_EXCEEDED)
    drop(sim, "underlay/eth1", Reason.VTEP_DENIED)
    drop(sim, "tap0", Reason.HAIRPIN)
    found = views.drop_views(sim.switch.state, sim.datapath, None)
    assert [(view.port, view.vtep, view.reason) for view in found] == [
        (None, HIGHER, "mtu_exceeded"),
        ("eth1", None, "vtep_denied"),
        ("tap0", None, "hairpin"),
    ]


def test_a_vtep_is_shown_with_its_counters(sim: Sim) -> None:
    state = sim.switch.state
    sim.datapath.counted[state.counters_of(f"vtep/{FURTHER}")["blue"]] = Traffic(
        packets=(1, 2, 0, 0), bytes=(10, 20, 0, 0), tx_packets=3, tx_bytes=300
    )
    drop(sim, f"vtep/{FURTHER}", Reason.MTU_EXCEEDED)
    higher, further = vtep_views(state, sim.datapath)
    assert (higher.address, higher.vnis, higher.segments, higher.rx_packets) == (HIGHER, [5010], ["blue"], 0)
    assert (further.vnis, further.segments, further.state, further.why) == ([5010, 5020], ["blue"], PortState.UP, "")
    assert (further.rx_packets, further.rx_bytes, further.drops) == (3 + 7, 30 + 7 * 60, 7)
    assert (further.tx_packets, further.tx_bytes) == (3, 300)


def test_a_vtep_that_no_tunnel_goes_to_says_why() -> None:
    sim = make(overlay=None)
    higher, _ = vtep_views(sim.switch.state, sim.datapath)
    assert (higher.state, higher.segments) == (PortState.PENDING, [])
    assert higher.why == "this host has no overlay; give it an [overlay] in vxagent.toml, then `vxagent reload`"
    assert overlay_view(sim.switch.state) is None


def test_a_segment_shows_how_it_is_on_other_hosts(sim: Sim) -> None:
    blue = views.segment_detail(sim.switch.state, sim.datapath, "blue")
    assert (blue.uplinks, blue.vteps, blue.bridges) == (["eth2"], [HIGHER, FURTHER], True)
    sim.change(lambda d: d.add_vtep(Vtep(address=LOWER, vnis=(5010,))))
    blue = views.segment_detail(sim.switch.state, sim.datapath, "blue")
    assert (blue.uplinks, blue.vteps, blue.bridges) == ([], [HIGHER, FURTHER, LOWER], False)
    red = views.segment_detail(sim.switch.state, sim.datapath, "red")
    assert (red.uplinks, red.vteps, red.bridges) == (["eth2"], [], False)


def test_a_segments_sums_include_what_came_from_vteps(sim: Sim) -> None:
    sim.datapath.counted[sim.switch.state.counters_of(f"vtep/{HIGHER}")["blue"]] = Traffic(packets=(5, 0, 0, 0))
    assert views.segment_detail(sim.switch.state, sim.datapath, "blue").rx_packets == 5


def test_groups_and_routers_behind_a_vtep_are_shown_by_its_address(sim: Sim) -> None:
    sim.change(lambda d: d.set_segment("blue", multicast_snooping=True))
    blue, vtep = sim.switch.state.handle_of_segment("blue"), handle(sim, f"vtep/{HIGHER}")
    sim.datapath.known = Multicast(
        groups=[Group(segment=blue, port=vtep, group=ip_address("239.1.1.1"), expires_s=60)],
        routers={(blue, vtep), (blue, handle(sim, "eth2"))},
        refused={},
        queriers={},
    )
    shown = views.segment_detail(sim.switch.state, sim.datapath, "blue")
    assert shown.groups == [GroupView(group="239.1.1.1", port=None, vtep=HIGHER, expires_s=60)]
    assert (shown.router_ports, shown.router_vteps) == (["eth2"], [HIGHER])


def test_events_name_vteps(sim: Sim) -> None:
    state = sim.switch.state

    def said(kind: EventType, port: str, other: str) -> str:
        event = Event(
            time_ns=0, type=kind, port=handle(sim, port), other_port=handle(sim, other), segment=1, mac=REMOTE
        )
        return describe(event, by_handle(state), state.names("segment"))

    vtep = f"vtep/{HIGHER}"
    assert said(EventType.MAC_MOVED, "tap0", vtep).endswith(f"moved from VTEP {HIGHER} to tap0")
    assert said(EventType.MAC_MOVED, vtep, "tap0").endswith(f"moved from port tap0 to VTEP {HIGHER}")
    assert f"between port tap0 and VTEP {HIGHER}: for 60 s it is learned on tap0" in said(
        EventType.MAC_HELD, vtep, "tap0"
    )
    assert str(NOBODY) == "port ?"


# --- metrics -------------------------------------------------------------------------------------


def samples(state: State, dropped: list[Drop]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What an agent in this state serves at /metrics."""
    host = FakeHost(DEVICES)
    found: list[str] = []

    async def work(agent: Agent) -> None:
        await agent.change(build)
        assert agent.switch.state.numbers.given == state.numbers.given
        host.datapath.dropped = dropped
        transport = httpx.ASGITransport(app=create_metrics_app(agent))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            found.append((await client.get("/metrics")).text)

    play(host, work)
    families = text_string_to_metric_families(found[0])
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_of_a_vtep_have_a_label_vtep_and_those_of_ports_none(sim: Sim) -> None:
    blue = sim.switch.state.handle_of_segment("blue")
    served = samples(
        sim.switch.state,
        [
            Drop(port=handle(sim, f"vtep/{HIGHER}"), segment=blue, reason=Reason.NO_DESTINATION, packets=3, bytes=300),
            Drop(port=handle(sim, "underlay/eth1"), segment=blue, reason=Reason.VTEP_DENIED, packets=5, bytes=500),
        ],
    )

    def value(name: str, **labels: str) -> float | None:
        return served.get((name, frozenset(labels.items())))

    place = {"segment": "blue", "tenant": "acme"}
    assert value("vxagent_port_receive_packets_total", port="", vtep=HIGHER, **place) == 3
    assert value("vxagent_port_receive_packets_total", port="tap0", **place) == 0
    assert value("vxagent_drop_packets_total", port="", vtep=HIGHER, reason="no_destination", **place) == 3
    assert value("vxagent_drop_packets_total", port="eth1", reason="vtep_denied", **place) == 5
    assert value("vxagent_overlay_up", vtep=OWN) == 1
    assert value("vxagent_vteps") == 2
    assert value("vxagent_map_entries", map="tunnels") == 2
    assert value("vxagent_port_events_suppressed_total", port="", vtep=HIGHER) == 0
    assert all(port.count("/") == 0 for _, labels in served for name, port in labels if name == "port")


# --- the API and the command line ----------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ServedHost]:
    served = ServedHost(tmp_path, DEVICES)
    served.config = Config(host="hv1", overlay=OVERLAY)
    with served:
        yield served


@pytest.fixture
def vxagent(host: ServedHost, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line; its exit code, stdout and stderr."""

    def call(line: str) -> tuple[int, str, str]:
        code = run(["--run-dir", str(host.run_dir), *line.split()])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


Vxagent = Callable[..., tuple[int, str, str]]


def test_vteps_by_the_command_line(vxagent: Vxagent) -> None:
    assert vxagent("vtep add 192.0.2.12 --vni 5010 --vni 5020") == (0, "VTEP 192.0.2.12 added\n", "")
    assert vxagent("vtep add 192.0.2.12 --vni 5020 --vni 5010") == (0, "VTEP 192.0.2.12 is there already\n", "")
    assert vxagent("vtep set 192.0.2.12 --vni 7") == (0, "VTEP 192.0.2.12 changed\n", "")
    assert vxagent("vtep set 192.0.2.12 --vni 7") == (0, "VTEP 192.0.2.12 is so already\n", "")
    assert vxagent("vtep list")[1] == (
        "ADDRESS     HOST  VNIS  SEGMENTS  STATE  RX  TX  DROPS  WHY\n"
        "192.0.2.12  -     7     -         up      0   0      0  -\n"
    )
    assert vxagent("vtep set 192.0.2.12 --no-vni")[0] == 0
    assert vxagent("export")[1] == '[[vtep]]\naddress = "192.0.2.12"\n'
    assert vxagent("vtep del 192.0.2.12") == (0, "VTEP 192.0.2.12 deleted\n", "")
    assert vxagent("vtep list --json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("vtep add", 2, "Missing argument 'ADDRESS'"),
        ("vtep set 192.0.2.12", 2, "nothing to set"),
        ("vtep set 192.0.2.12 --vni 5 --no-vni", 2, "--vni and --no-vni contradict each other"),
        ("vtep set 192.0.2.12 --vni 5", 1, "no vtep 192.0.2.12; see `vxagent vtep list`"),
        ("vtep del 192.0.2.12", 1, "no vtep 192.0.2.12"),
        ("vtep del hv2", 1, "address 'hv2': must be an IPv4 or IPv6 address"),
        ("vtep add 192.0.2.11", 1, "192.0.2.11 is this host's own VTEP"),
        ("vtep add 192.0.2.12 --vni 0", 1, "vni 0: must be 1 to 16777215"),
        ("fdb add 02:00:00:00:00:01 --segment blue --port tap0 --vtep 192.0.2.12", 2, "give one of --port and --vtep"),
        ("segment set blue --mtu 1400 --no-mtu", 2, "--mtu and --no-mtu contradict each other"),
        ("segment add x --tenant t --vni 5 --mtu 1500", 1, "MTU 1500 of segment x is more than the 1450"),
        ("segment add x --tenant t --mtu 0", 1, "mtu 0: must be 576 to 65535"),
    ],
)
def test_what_the_command_line_refuses(vxagent: Vxagent, line: str, code: int, message: str) -> None:
    ended, out, err = vxagent(line)
    assert (ended, out) == (code, "")
    assert err.startswith(f"vxagent: {message}")


def test_an_entry_at_a_vtep_by_the_command_line(vxagent: Vxagent) -> None:
    vxagent("segment add blue --tenant acme --vni 5010")
    vxagent("vtep add 2001:DB8::c --vni 5010")
    assert vxagent(f"fdb add {REMOTE_MAC} --segment blue --vtep 192.0.2.12")[0] == 1
    vxagent("vtep add 192.0.2.12 --vni 5010")
    assert vxagent(f"fdb add {REMOTE_MAC} --segment blue --vtep 192.0.2.12") == (0, f"{REMOTE_MAC} added\n", "")
    assert vxagent("fdb list")[1] == (
        "SEGMENT  TENANT  MAC                PORT        ORIGIN  AGE  HELD\n"
        f"blue     acme    {REMOTE_MAC}  192.0.2.12  static    -     -\n"
    )
    assert vxagent("segment set blue --mtu 1400")[0] == 0
    assert vxagent("segment set blue --no-mtu")[0] == 0
    assert '"mtu":1450' in vxagent("segment list --json")[1]


def test_an_option_takes_the_names_that_tables_give_to_the_underlay_and_to_vteps(vxagent: Vxagent) -> None:
    vxagent("vtep add 192.0.2.12 --vni 5010")
    for name in ("eth1", "192.0.2.12"):
        assert vxagent(f"drops --port {name} --json") == (0, "[]\n", "")
        assert vxagent(f"fdb flush --port {name}")[0] == 0
    for name in ("eth2", "192.0.2.13"):
        assert vxagent(f"drops --port {name}")[0] == 1


def test_status_shows_the_overlay(vxagent: Vxagent) -> None:
    out = vxagent("status --json")[1]
    assert '"overlay":{"vtep":"192.0.2.11","device":"eth1","state":"up","why":""}' in out
    assert "overlay vtep    192.0.2.11\n" in vxagent("status")[1]


def test_reload_says_what_is_wrong(host: ServedHost, vxagent: Vxagent) -> None:
    host.change(lambda d: d.add_segment(Segment(name="teal", tenant="acme", vni=5040, mtu=1450)))
    assert vxagent("reload") == (0, "reloaded\n", "")
    host.links.put(replace(ETH1, mtu=1400))
    code, out, err = vxagent("reload")
    assert (code, out) == (0, "reloaded\n")
    assert err.startswith("vxagent: warning: segment teal has MTU 1450, the overlay room for 1350 bytes")


def test_without_an_overlay_a_vtep_is_stated_and_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServedHost(tmp_path, DEVICES):
        assert run(["--run-dir", str(tmp_path), "vtep", "add", "192.0.2.12", "--vni", "5"]) == 0
        assert capsys.readouterr().out.startswith("VTEP 192.0.2.12 added; this host has no overlay; give it")
        assert run(["--run-dir", str(tmp_path), "status", "--json"]) == 0
        assert '"overlay":null' in capsys.readouterr().out


def test_the_underlay_is_looked_at_by_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    """An MTU that changes while nobody asks for anything."""
    host = FakeHost(DEVICES)
    host.config = Config(host="hv1", audit_s=1)

    async def work(agent: Agent) -> None:
        await agent.change(lambda d: d.add_segment(Segment(name="teal", tenant="acme", vni=5040, mtu=1450)))
        host.links.put(replace(ETH1, mtu=1400))
        async with asyncio.timeout(SOON_S):
            while not any("segment teal has MTU 1450" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.01)

    play(host, work)


def test_a_port_on_the_underlay_is_refused(vxagent: Vxagent, host: ServedHost) -> None:
    host.change(lambda d: d.add_segment(Segment(name="red", tenant="acme")))
    code, _, err = vxagent("port attach eth1 --segment red")
    assert code == 1
    assert err.startswith("vxagent: device eth1 is the underlay of the overlay, port eth1 cannot have it; name another")
    with pytest.raises(Conflict):
        host.change(lambda d: d.attach_port(Port(id="vm", ifname="eth1", segment="red")))

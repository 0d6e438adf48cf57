"""`vxagent bench` in small: every case, what is counted, what makes a case invalid, and what is left behind.

Nothing here says how fast anything is: the machine may be busy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.lan import clean_world
from vxagent.bench import figures
from vxagent.bench.cases import CASES, Case
from vxagent.bench.contenders import Vxagent
from vxagent.bench.document import Machine, document
from vxagent.bench.figures import Figures
from vxagent.bench.flows import Broken, flow
from vxagent.bench.idle_taps import IdleTap, TapLab
from vxagent.bench.lab import Lab
from vxagent.bench.run import Bench, Step
from vxagent.bench.schedule import Effort
from vxagent.errors import Refused
from vxagent.lab.agent import VXAGENT, Agent
from vxagent.lab.namespaces import DIRECTORY, Namespace
from vxagent.lab.tap import open_tap
from vxagent.lab.world import World

pytestmark = pytest.mark.alone  # it measures

SMALL = Effort(rounds=1, slices_s=1000, slice_most_s=0.03)
SLICE_S = 0.05


def case_named(name: str) -> Case:
    """A case; the large FDB is not so large here."""
    found = next(case for case in CASES if case.name == name)
    return found if found.spread is None else replace(found, spread=(10, 2000))


def measured(lab: Lab, *cases: Case) -> tuple[Figures, ...]:
    """What a round of each comes to."""
    return Bench(lab, SMALL, lambda _: None, cases).run()


@pytest.fixture
def any_aa(monkeypatch: pytest.MonkeyPatch) -> None:
    """A/A is right however far it is off."""
    monkeypatch.setattr(figures, "AA_PACKETS", 1e9)
    monkeypatch.setattr(figures, "AA_NOISY", 1e9)


@pytest.fixture(scope="module")
def whole() -> Iterator[Lab]:
    """A lab that several tests share; whoever breaks something in it mends it."""
    with clean_world() as world:
        yield Lab(world)


@pytest.fixture
def lab(world: World) -> Lab:
    """A lab that may be broken."""
    return Lab(world)


@pytest.mark.usefixtures("any_aa")
def test_every_case_is_measured(whole: Lab) -> None:
    steps: list[Step] = []
    cases = [case_named(case.name) for case in CASES]
    found = document(Machine.this(), 1, Bench(whole, SMALL, steps.append, cases).run())
    assert [one["case"] for one in found["results"]] == [case.name for case in CASES]
    for one, case in zip(found["results"], cases, strict=True):
        assert one["valid"], one
        assert one["vxagent"] > 0
        assert one["ratio_min"] <= one["ratio"] <= one["ratio_max"]
        assert (one["bridge"] is None) == (case.spread is not None)
        assert one["limit"] > 0
    assert {step.case for step in steps} == {case.name for case in CASES}
    assert steps[-1].done < steps[-1].total


@pytest.mark.parametrize("name", ["tap-64", "tap-1514-partial", "veth-64"])
def test_what_is_counted_at_the_receiver_is_what_the_switch_forwarded(whole: Lab, name: str) -> None:
    case = case_named(name)
    contender = whole.entrants(case).contenders["vxagent"]
    assert isinstance(contender, Vxagent)
    path = contender.path(case)
    sending = flow(case, whole.traffic, whole.programs)
    before = ports(contender)
    found = sending.slice(path, SLICE_S)
    after = ports(contender)
    one, two = path.ports[:2]
    greeting = 1  # of either VM, a broadcast
    assert found.sent > 0
    assert after[one]["rx_packets"] - before[one]["rx_packets"] == found.sent + greeting
    given = after[two]["tx_packets"] - before[two]["tx_packets"]
    assert given == found.sent + greeting
    lost = after[two]["egress_failed"] - before[two]["egress_failed"]
    assert given - lost == found.delivered + greeting


def ports(contender: Vxagent) -> dict[str, dict[str, int]]:
    """The switch's counters by port."""
    return ports_of(contender.agent)


def ports_of(agent: Agent) -> dict[str, dict[str, int]]:
    """The same of one host."""
    return {port["ifname"]: port for port in agent.json("port", "list")}


def test_over_a_tunnel_it_is_what_both_hosts_forwarded(whole: Lab) -> None:
    case = case_named("vxlan-64")
    contender = whole.entrants(case).contenders["vxagent"]
    assert isinstance(contender, Vxagent)
    path = contender.path(case)
    sending = flow(case, whole.traffic, whole.programs)
    sending.probe(path)
    here, there = (contender.agent_on(host) for host in path.hosts)
    one, two = path.ends

    def counters() -> tuple[int, ...]:
        (near,), (far,) = (agent.json("vtep", "list") for agent in (here, there))
        rx, tx = ports_of(here)[one]["rx_packets"], ports_of(there)[two]["tx_packets"]
        return rx, near["tx_packets"], far["rx_packets"], tx

    before = counters()
    found = sending.slice(path, SLICE_S)
    after = counters()
    greeting = 1  # of either VM, a broadcast
    assert found.delivered == found.sent > 0
    assert [a - b for a, b in zip(after, before, strict=True)] == [found.sent + greeting] * 4


def test_live_frames_have_their_tag_each_time_that_they_are_used_again(whole: Lab) -> None:
    case = case_named("xdp-uplink-64")
    contender = whole.entrants(case).contenders["vxagent"]
    assert isinstance(contender, Vxagent)
    path = contender.path(case)
    before = ports(contender).get(path.ports[0], {}).get("tx_packets", 0)
    found = flow(case, whole.traffic, whole.programs).slice(path, SLICE_S)
    assert ports(contender)[path.ports[0]]["tx_packets"] - before >= found.sent > 0


@pytest.mark.usefixtures("any_aa")
def test_a_bridge_whose_port_is_down_makes_the_case_invalid(lab: Lab) -> None:
    case = case_named("veth-64")
    bridge = lab.entrants(case).contenders["bridge"]
    path = bridge.path(case)
    bridge.switch.ip("link", "set", path.ports[1], "down")
    (found,) = measured(lab, case)
    assert not found.valid
    assert found.ratio is None
    assert found.why_not.startswith("bridge: no answer to a ping")


@pytest.mark.parametrize(("name", "at"), [("tap-64", 0), ("veth-64", 0), ("vxlan-64", 0), ("vxlan-64", 1)])
def test_a_bridge_that_floods_is_found_out(lab: Lab, name: str, at: int) -> None:
    case = case_named(name)
    path = lab.entrants(case).contenders["bridge"].path(case)
    sending = flow(case, lab.traffic, lab.programs)
    sending.probe(path)
    host = path.hosts[at].switch
    for port in (*path.hosts[at].ports, *(host.devices() & {f"vx-{path.name}"})):
        host.ip("link", "set", port, "type", "bridge_slave", "learning", "off")
    host.ip("link", "set", f"br-{path.name}", "type", "bridge", "fdb_flush")
    with pytest.raises(Broken, match="flooded"):
        sending.slice(path, SLICE_S)


def test_a_flood_that_misses_a_port_is_found_out(lab: Lab) -> None:
    case = case_named("flood-8")
    bridge = lab.entrants(case).contenders["bridge"]
    path = bridge.path(case)
    sending = flow(case, lab.traffic, lab.programs)
    sending.probe(path)
    bridge.switch.ip("link", "set", path.ports[-1], "nomaster")
    with pytest.raises(Broken, match="at 6 others"):
        sending.probe(path)


@pytest.mark.usefixtures("any_aa")
def test_a_limit_that_cannot_be_shown_leaves_the_case_valid(whole: Lab) -> None:
    case = case_named("veth-64")
    limit = whole.entrants(case).contenders["limit"]
    port = limit.path(case).ports[0]
    limit.switch.ip("link", "set", port, "down")
    (found,) = measured(whole, case)
    limit.switch.ip("link", "set", port, "up")
    assert (found.valid, found.limit) == (True, None)
    assert [text.split(":")[0] for text in found.left_out] == ["limit"]


# --- the command ---------------------------------------------------------------------------------


def left_by(pid: int) -> list[str]:
    """What is there under the names that a world of this process has."""
    places = (DIRECTORY, Path(tempfile.gettempdir()))
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"/vx-{pid}-" in line]
    return [str(path) for place in places for path in place.glob(f"vx-{pid}-*")] + mounts


@pytest.mark.parametrize(
    ("ending", "after"),
    [(signal.SIGINT, "tap-64: round 1"), (signal.SIGTERM, "tap-64: building"), (signal.SIGHUP, "tap-64: building")],
)
def test_an_interrupted_bench_leaves_nothing_behind(ending: signal.Signals, after: str) -> None:
    bench = subprocess.Popen(
        [VXAGENT, "bench", "--quick"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert bench.stderr is not None
    while after not in (line := bench.stderr.readline()):
        assert line, "it ended by itself"
    os.killpg(bench.pid, ending)  # as a terminal does: to all of the foreground
    out, told = bench.communicate(timeout=60)
    assert (bench.returncode, out) == (128 + ending, "")
    assert told.splitlines()[-1] == f"vxagent: interrupted ({ending.name}); the lab is gone"
    assert left_by(bench.pid) == []


@pytest.fixture
def idle(world: World) -> Namespace:
    """A host with two taps that nobody uses; only one is made for a VM with offloads."""
    host = world.namespace("host")
    host.ip("tuntap", "add", "dev", "ua", "mode", "tap")
    host.ip("tuntap", "add", "dev", "ub", "mode", "tap", "vnet_hdr")
    return host


def shown(host: Namespace) -> list[dict[str, object]]:
    """All that `ip` says about its devices."""
    return list(json.loads(host.ip("-j", "-d", "address", "show")))


@pytest.mark.usefixtures("any_aa")
def test_idle_taps_are_measured_and_given_back_as_they_were(idle: Namespace) -> None:
    before = shown(idle)
    with idle.entered():
        taps = [IdleTap.find(name) for name in ("ua", "ub")]
        with clean_world() as world:
            (found,) = measured(TapLab(world, taps), case_named("tap-64"))
            assert shown(idle) != before
    assert found.valid, found.why_not
    assert found.ratio is not None
    assert shown(idle) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("link set ua up", "ua is up"),
        ("address add 10.0.0.1/24 dev ua", "ua has addresses"),
        ("link set ua master br0", "ua is in br0"),
    ],
)
def test_a_tap_that_is_not_idle_is_refused(idle: Namespace, words: str, says: str) -> None:
    idle.ip("link", "add", "br0", "type", "bridge")
    idle.ip(*words.split())
    before = shown(idle)
    with idle.entered(), pytest.raises(Refused, match=says):
        IdleTap.find("ua")
    refused = idle.run(VXAGENT, "bench", "--quick", "--on", "ub,ua", check=False)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert shown(idle) == before


def test_a_tap_that_somebody_has_open_is_refused_and_the_other_given_back(idle: Namespace) -> None:
    before = shown(idle)
    with idle.entered():
        taps = [IdleTap.find(name) for name in ("ua", "ub")]
    opened = open_tap(idle, "ub")
    try:
        with idle.entered(), pytest.raises(Refused, match="ub cannot be opened"), clean_world() as world:
            TapLab(world, taps)
    finally:
        os.close(opened)
    assert [one["ifname"] for one in shown(idle)] == [one["ifname"] for one in before]


def test_what_is_no_tap_is_refused(idle: Namespace) -> None:
    with idle.entered():
        for name, says in (("lo", "lo is no tap"), ("nix", "there is no device nix")):
            with pytest.raises(Refused, match=says):
                IdleTap.find(name)

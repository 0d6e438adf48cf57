"""`vxagent bench --faults`, its short form: every fault, what is counted, and what makes a run invalid.

Nothing here says how fast anything is: the machine may be busy. The long form is `make faults`.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.builds import DROPS_ALL, FAILS_THE_VERIFIER, OTHER_TABLES, make_build
from support.lan import clean_world
from vxagent.bench.faults.efforts import QUICK, Effort
from vxagent.bench.faults.figures import Figures
from vxagent.bench.faults.lab import TUNNEL, FaultLab
from vxagent.bench.faults.run import Faults
from vxagent.bench.faults.stream import SOURCE, Stream
from vxagent.bench.faults.table import FAULTS, Fault
from vxagent.bench.traffic import compiled
from vxagent.lab.agent import VXAGENT
from vxagent.lab.namespaces import DIRECTORY, Namespace
from vxagent.lab.tap import open_tap
from vxagent.lab.traffic import send_frames
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

SHORT = replace(QUICK, kills=1, reloads=2, turns=1, away_s=0.5)
BUILDS = (OTHER_TABLES, FAILS_THE_VERIFIER, (*OTHER_TABLES, *DROPS_ALL))  # all but the first do not work
REFUSE = ("broken build, up", "database locked", "disk full", "bpffs read-only", "no descriptors")
RUN = 7


@pytest.fixture(scope="module")
def lab() -> Iterator[FaultLab]:
    """One for all faults: each leaves it as it should be."""
    with clean_world() as world:
        other, *broken = (make_build(world.directory(), changes) for changes in BUILDS)
        yield FaultLab(world, other=other, broken=broken)


def done(lab: FaultLab, fault: Fault) -> Figures:
    """What a fault comes to, done in short."""
    (found,) = Faults(lab, SHORT, lambda _: None, [fault]).run()
    return found


def of(strike: Any) -> Fault:
    """A fault of the test's own."""
    return Fault(name="own", times=lambda _: 1, strike=strike)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_no_frame_is_lost_duplicated_or_reordered(lab: FaultLab, fault: Fault) -> None:
    found = done(lab, fault)
    if found.not_here:
        pytest.skip(found.not_here)
    assert found.good, found.why
    assert found.times == fault.times(SHORT)
    assert found.streams is not None
    assert all(sent > 0 for sent, *_ in found.streams.values())
    assert bool(found.said) == (fault.name in REFUSE)


def test_the_other_build_has_other_tables(lab: FaultLab) -> None:
    def strike(lab: FaultLab, _: Effort) -> None:
        for build, layout in ((lab.other, "v2"), (None, "v1")):
            lab.agent.build = build
            lab.agent.cli("stop")
            lab.agent.up()
            (pinned,) = (lab.agent.run_dir / "bpf").glob("v*")
            assert pinned.name.split("-")[0] == layout

    assert done(lab, of(strike)).good


def test_without_another_build_its_row_is_not_here(lab: FaultLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "other", None)
    (fault,) = (fault for fault in FAULTS if fault.name == "other build, back")
    assert done(lab, fault).not_here == "no other build is given (--other-build)"


def test_taps_and_the_uplink_have_xdp(lab: FaultLab) -> None:
    assert lab.fast == {"t1", "t2", "t3", "t4", "u0", "many"}


def test_builds_that_do_not_work_are_refused_for_what_is_wrong_with_them(lab: FaultLab) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "broken build, up")
    said = done(lab, fault).said
    for why in ("cannot load program vx_xdp", "do not pass their probe"):
        assert any(why in line for line in said), said


def test_a_build_that_should_be_refused_and_is_not_is_found_out(lab: FaultLab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.other is not None
    monkeypatch.setattr(lab, "broken", [lab.other])
    (fault,) = (fault for fault in FAULTS if fault.name == "broken build, up")
    found = done(lab, fault)
    assert found.broken.endswith("was not refused")
    assert (found.lost, found.good) == (0, False)
    lab.well()


def test_on_a_full_disk_everything_that_is_refused_says_so(lab: FaultLab) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "disk full")
    assert {"the disk is full" in line for line in done(lab, fault).said} == {True}


# --- what is no pass -------------------------------------------------------------------------------


def test_a_port_that_is_gone_for_a_moment_loses_frames(lab: FaultLab) -> None:
    def strike(lab: FaultLab, _: Effort) -> None:
        lab.agent.cli("port", "detach", "v2")
        lab.agent.cli("port", "attach", "v2", "--segment", "green")

    found = done(lab, of(strike))
    assert found.lost > 0
    assert found.streams is not None
    assert {name for name, (_, lost, *_) in found.streams.items() if lost} == {"veth → veth"}
    assert (found.good, found.valid) == (False, True)


def test_a_ring_that_is_too_small_makes_the_run_invalid(lab: FaultLab) -> None:
    def strike(lab: FaultLab, effort: Effort) -> None:
        before = lab.dropped()
        lab.switch.ip("link", "set", "t2", "txqueuelen", "1")
        try:
            wait_until(lambda: lab.dropped() > before, what="the tap has no room")
        finally:
            lab.switch.ip("link", "set", "t2", "txqueuelen", "131072")

    found = done(lab, of(strike))
    assert found.overflow > 0
    assert (found.valid, found.good) == (False, False)


def test_a_command_that_should_be_refused_and_is_not_is_found_out(lab: FaultLab) -> None:
    found = done(lab, of(lambda lab, _: lab.refused("status")))
    assert found.broken == "`vxagent status` was not refused"
    assert not found.good


def test_an_agent_that_is_gone_is_found_out_and_started_again(lab: FaultLab) -> None:
    found = done(lab, of(lambda lab, _: lab.agent.kill()))
    assert "no agent answers" in found.broken
    assert (found.lost, found.good) == (0, False)
    lab.well()


def test_a_port_that_has_lost_xdp_is_found_out(lab: FaultLab) -> None:
    try:
        found = done(lab, of(lambda lab, _: lab.agent.cli("port", "set", "t1", "--hook", "tc")))
    finally:
        lab.agent.cli("port", "set", "t1", "--hook", "auto")
    assert found.broken == "afterwards XDP is gone from t1"
    assert (found.lost, found.good) == (0, False)
    lab.well()


def test_an_uplink_that_has_lost_xdp_is_found_out(lab: FaultLab) -> None:
    def again(*options: str) -> None:
        lab.agent.cli("uplink", "del", "u0")
        lab.agent.cli("uplink", "add", "u0", *options)

    try:
        found = done(lab, of(lambda *_: again("--hook", "tc")))
    finally:
        again()
    assert found.broken == "afterwards XDP is gone from u0"
    lab.well()


# --- what is counted -------------------------------------------------------------------------------


@pytest.fixture
def wire(world: World) -> Namespace:
    """Two devices with nothing between them but their wire: `wa` and `wb`."""
    namespace = world.namespace("wire")
    namespace.ip_batch(["link add name wa up type veth peer name wb", "link set wb up"])
    namespace.wait_running("wb")
    return namespace


def numbered(*numbers: int, stream: int = 0, run: int = RUN, vid: int | None = None) -> list[bytes]:
    """Frames of a stream with these numbers."""
    made = Stream(
        name="s",
        sender=("02:00:00:00:00:01", "10.0.0.1"),
        receiver=("02:00:00:00:00:02", "10.0.0.2"),
        source="packet:wa",
        vid=vid,
    )
    head = 42 if vid is None else 46
    return [made.frame()[:head] + struct.pack("=IIQ", run, stream, number) for number in numbers]


def counted(wire: Namespace, directory: Path, end: str, ifname: str, frames: list[bytes], *fds: int) -> Any:
    """What a receiver says of frames that are sent out of a device."""
    program = str(compiled(SOURCE, directory))
    with wire.start(program, "0", "take", str(RUN), "2", end, stdout=subprocess.PIPE, pass_fds=fds) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        send_frames(wire, ifname, *frames)
        receiver.terminate()
        return json.loads(receiver.stdout.readline())


@pytest.mark.parametrize(
    ("frames", "streams", "astray"),
    [
        (numbered(0, 1, 2), [[3, 0, 0], [0, 0, 0]], 0),
        (numbered(0, 2, 3), [[3, 0, 0], [0, 0, 0]], 0),  # who knows what was sent knows what is lost
        (numbered(0, 1, 1, 2, 1), [[3, 2, 0], [0, 0, 0]], 0),
        (numbered(2, 0, 1, 3), [[4, 0, 2], [0, 0, 0]], 0),
        (numbered(0, 3, 1) + numbered(0, stream=1), [[3, 0, 1], [0, 0, 0]], 1),
        (numbered(0, run=RUN + 1) + numbered(0, stream=9), [[0, 0, 0], [0, 0, 0]], 0),
        (numbered(70_000, 64, 63), [[3, 0, 2], [0, 0, 0]], 0),
        ([TUNNEL.packet(frame) for frame in numbered(0, 2, 1, 1)], [[3, 1, 1], [0, 0, 0]], 0),
    ],
    ids=[
        "in order",
        "a gap",
        "duplicates",
        "late ones",
        "of another stream",
        "of another run",
        "far apart",
        "in a tunnel",
    ],
)
def test_numbers_are_counted_exactly(
    world: World, wire: Namespace, frames: list[bytes], streams: list[list[int]], astray: int
) -> None:
    found = counted(wire, world.directory(), "packet:wb:0:", "wa", frames)
    assert (found["streams"], found["astray"], found["dropped"]) == (streams, astray, 0)


@pytest.mark.parametrize(("vid", "received"), [("12", 2), ("13", 0), ("0", 1)])
def test_where_frames_have_a_tag_those_without_it_do_not_count(world: World, vid: str, received: int) -> None:
    wire = world.namespace("wire")
    fd = open_tap(wire, "wt")
    try:
        wire.ip("link", "set", "wt", "up")
        frames = numbered(0, 1, vid=12) + numbered(2)
        found = counted(wire, world.directory(), f"tap:{fd}:0::{vid}", "wt", frames, fd)
    finally:
        os.close(fd)
    assert found["streams"][0] == [received, 0, 0]


# --- the command -----------------------------------------------------------------------------------


def left_by(pid: int) -> list[str]:
    """What is there under the names that a world of this process has."""
    places = (DIRECTORY, Path(tempfile.gettempdir()))
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"/vx-{pid}-" in line]
    return [str(path) for place in places for path in place.glob(f"vx-{pid}-*")] + mounts


def test_an_interrupted_run_leaves_nothing_behind() -> None:
    bench = subprocess.Popen(
        [VXAGENT, "bench", "--faults", "--quick"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert bench.stderr is not None
    while "SIGSTOP, SIGCONT: 1" not in (line := bench.stderr.readline()):
        assert line, "it ended by itself"
    os.killpg(bench.pid, signal.SIGINT)
    out, told = bench.communicate(timeout=60)
    assert (bench.returncode, out) == (130, "")
    assert told.splitlines()[-1] == "vxagent: interrupted (SIGINT); the lab is gone"
    assert left_by(bench.pid) == []

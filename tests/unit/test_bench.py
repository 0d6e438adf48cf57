"""The bench's parts that need no device: ratios, validity, order, the document, the frames, the command line."""

from __future__ import annotations

import io
import ipaddress
import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.bench import plot, run
from vxagent.bench.cases import CASES, Case
from vxagent.bench.document import Machine, document, human, rows
from vxagent.bench.figures import Figures, Roles, failed, judge, ratio
from vxagent.bench.flows import Broken, Slice
from vxagent.bench.frames import NO_HEADER, frame, hello
from vxagent.bench.lab import Entrants
from vxagent.bench.run import Interrupted, Outcome, Step
from vxagent.bench.schedule import FULL, OVERHEAD_S, QUICK, Effort, order
from vxagent.bench.traffic import SOURCE, Traffic
from vxagent.bench.tunnels import ROOM, Host
from vxagent.errors import HostError
from vxagent.lab.namespaces import Namespace
from vxagent.lab.ping import checksum
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR
from vxagent.lab.signals import Stopped
from vxagent_cli.app import run as command_line

BY_NAME = {case.name: case for case in CASES}
TAP, TCP, SCALE = BY_NAME["tap-64"], BY_NAME["veth-tcp-1"], BY_NAME["fdb-scale"]
ONE, TWO = ("02:00:00:00:00:01", "10.0.0.1"), ("02:00:00:00:00:02", "10.0.0.2")
MACHINE = Machine(machine="2 × a CPU, 4 GiB", kernel="6.18", versions={"vxagent": "0"})
KEYS = {"case", "unit", "bridge", "vxagent", "limit", "ratio", "ratio_min", "ratio_max", "valid"}


def one_round(bridge: float, vxagent: float, again: float | None = None, **others: float) -> dict[str, float]:
    return {"bridge": bridge, "bridge again": bridge if again is None else again, "vxagent": vxagent, **others}


def good(case: Case) -> Figures:
    roles = Roles(limit=None, others=("ovs",)) if case is TAP else Roles()
    return judge(case, [one_round(100, 150, limit=300, ovs=50)] * 3, roles)


# --- ratios and validity -------------------------------------------------------------------------


def test_the_ratio_is_the_median_of_ratios_and_no_ratio_of_medians() -> None:
    rounds = [one_round(100, 900), one_round(300, 400), one_round(400, 500)]
    found = judge(TAP, rounds, Roles(limit=None))
    assert (found.tested, found.base) == (500, 300)
    assert found.ratio is not None
    assert found.ratio.median == pytest.approx(4 / 3)  # and not 5 / 3
    assert (found.ratio.least, found.ratio.most) == (1.25, 9)


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(0.1, 10)), min_size=1))
def test_the_median_lies_between_the_least_and_the_most(pairs: list[tuple[float, float]]) -> None:
    found = ratio([{"a": base * times, "b": base} for base, times in pairs], "a", "b")
    assert found is not None
    assert found.least <= found.median <= found.most


@pytest.mark.parametrize(
    ("case", "again", "valid"),
    [(TAP, 104, True), (TAP, 96, True), (TAP, 106, False), (TAP, 94, False), (TCP, 114, True), (TCP, 84, False)],
)
def test_a_case_whose_bridge_is_not_as_fast_as_itself_is_invalid(case: Case, again: float, valid: bool) -> None:
    found = judge(case, [one_round(100, 150, again)] * 5, Roles(limit=None))
    assert found.valid is valid
    assert found.aa == again / 100
    assert ("A/A" in found.why_not) is not valid


def test_one_round_that_is_off_does_not_make_a_case_invalid() -> None:
    rounds = [one_round(100, 150)] * 4 + [one_round(100, 150, again=300)]
    assert judge(TAP, rounds, Roles(limit=None)).valid


@pytest.mark.parametrize("silent", ["bridge", "bridge again", "vxagent"])
def test_a_case_in_which_nothing_arrived_once_is_invalid(silent: str) -> None:
    rounds = [one_round(100, 150)] * 4 + [one_round(100, 150) | {silent: 0.0}]
    found = judge(TAP, rounds, Roles(limit=None))
    assert (found.valid, found.ratio, found.why_not) == (False, None, f"nothing arrived: {silent}")


def test_a_limit_or_another_contender_that_failed_says_nothing_of_the_case() -> None:
    rounds = [one_round(100, 150, limit=300, ovs=50), one_round(100, 150, limit=0, ovs=0)]
    found = judge(TAP, rounds, Roles(others=("ovs",)))
    assert (found.valid, found.limit, found.others) == (True, None, {})


def test_without_a_round_there_is_no_result() -> None:
    assert judge(TAP, [], Roles()).why_not == "no round was measured"


# --- rounds --------------------------------------------------------------------------------------


def test_rounds_go_there_and_back() -> None:
    assert order("ABC", 0) == ["A", "B", "C"]
    assert order("ABC", 1) == ["C", "B", "A"]


@pytest.mark.parametrize(("effort", "within_s"), [(FULL, 300), (QUICK, 60)])
@pytest.mark.parametrize("contenders", [4, 6])
def test_all_slices_fit_into_the_time(effort: Effort, within_s: float, contenders: int) -> None:
    counts = [contenders for _ in CASES]
    slices = (effort.rounds + 1) * sum(counts)
    assert slices * (effort.slice_s(counts) + OVERHEAD_S) <= within_s * 0.85  # the rest is for building the lab


def test_the_default_keeps_to_the_method() -> None:
    assert FULL.rounds >= 9
    assert 0.35 <= FULL.slice_s([4 for _ in CASES]) <= 0.8


class Fake:
    """A lab, its contenders and the flow between them: each reaches 100 in a slice, or what `reached` says."""

    def __init__(self) -> None:
        self.traffic = self.programs = None
        self.turns: list[str] = []
        self.reached: dict[str, list[float]] = {}
        self.broken: set[str] = set()

    def count(self, case: Case) -> int:
        return 4

    def entrants(self, case: Case) -> Entrants:
        names = ("bridge", "vxagent", "bridge again", "limit")
        return Entrants(contenders={name: FakeContender(name) for name in names}, roles=Roles())  # type: ignore[misc]  # a fake

    def probe(self, path: SimpleNamespace, *, stacks: bool) -> None:
        assert stacks == (path.name != "limit")

    def slice(self, path: SimpleNamespace, seconds: float) -> Slice:
        self.turns.append(path.name)
        if path.name in self.broken:
            raise Broken("flooded")
        values = self.reached.get(path.name, [])
        return Slice(sent=1, delivered=1, value=values.pop(0) if values else 100.0)


@dataclass
class FakeContender:
    name: str

    def path(self, case: Case) -> SimpleNamespace:
        return SimpleNamespace(name=self.name)

    @contextmanager
    def at_work(self, path: SimpleNamespace) -> Iterator[None]:
        yield


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(run, "flow", lambda *_: fake)
    return fake


def rounds_of(fake: Fake) -> Figures:
    """What two rounds and one to throw away come to."""
    steps: list[Step] = []
    effort = Effort(rounds=2, slices_s=1)
    (found,) = run.Bench(fake, effort, steps.append, [TAP]).run()  # type: ignore[arg-type]  # a fake
    assert [step.doing for step in steps][:2] == ["building", "warming up"]
    return found


def test_the_first_round_is_thrown_away(fake: Fake) -> None:
    fake.reached = {"vxagent": [900, 150, 170]}
    found = rounds_of(fake)
    there = ["bridge", "vxagent", "bridge again", "limit"]
    assert fake.turns == [*there, *reversed(there), *there]
    assert found.ratio is not None
    assert (found.ratio.median, found.ratio.least, found.ratio.most) == (1.6, 1.5, 1.7)


def test_a_contender_that_breaks_while_it_is_measured_makes_the_case_invalid(fake: Fake) -> None:
    fake.broken = {"vxagent"}
    found = rounds_of(fake)
    assert (found.valid, found.why_not) == (False, "vxagent: flooded")


def test_a_limit_that_breaks_while_it_is_measured_does_not(fake: Fake) -> None:
    fake.broken = {"limit"}
    found = rounds_of(fake)
    assert (found.valid, found.limit, found.tested) == (True, None, 100)


# --- the document --------------------------------------------------------------------------------


def test_the_document_has_every_case_and_these_keys() -> None:
    results = [good(case) if case is not TCP else failed(case, "no answer") for case in CASES]
    found = json.loads(json.dumps(document(MACHINE, 5, results)))
    assert set(found) == {"machine", "kernel", "versions", "rounds", "aa", "results"}
    assert [one["case"] for one in found["results"]] == [case.name for case in CASES]
    assert found["aa"].keys() == BY_NAME.keys()
    by_case = {one["case"]: one for one in found["results"]}
    assert set(by_case["veth-64"]) == KEYS
    assert by_case["veth-64"] == {
        "case": "veth-64",
        "unit": "packets/s",
        "bridge": 100.0,
        "vxagent": 150.0,
        "limit": 300.0,
        "ratio": 1.5,
        "ratio_min": 1.5,
        "ratio_max": 1.5,
        "valid": True,
    }
    assert by_case["tap-64"]["others"] == {"ovs": 0.5}
    assert by_case["veth-tcp-1"] == dict.fromkeys(KEYS) | {"case": "veth-tcp-1", "unit": "bit/s", "valid": False}


def test_the_scale_of_the_fdb_is_that_of_few_entries_to_many() -> None:
    roles = Roles(base="many", again="many again", tested="few", limit=None)
    figures = judge(SCALE, [{"many": 100, "many again": 100, "few": 150}], roles)
    (found,) = document(MACHINE, 5, [figures])["results"]
    assert (found["bridge"], found["vxagent"], found["limit"], found["ratio"]) == (None, 100, 150, 1.5)


def test_the_table_shows_no_figure_of_an_invalid_case() -> None:
    busy = judge(TAP, [one_round(100, 150, again=200)], Roles(limit=None))
    row, other = rows([busy, good(BY_NAME["rtt-spin"])])
    assert (row["vxagent ÷ bridge"], row["bridge"], row["vxagent"], row["A/A"]) == ("not valid", None, None, "2.00")
    assert other["vxagent ÷ bridge"] == "1.50 [1.50–1.50] smaller is better"
    assert other["bridge"] == "100.0 µs"


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (1_234_567, "packets/s", "1.23 Mpackets/s"),
        (12_300_000_000, "bit/s", "12.30 Gbit/s"),
        (999, "packets/s", "999 packets/s"),
        (9.14, "µs", "9.1 µs"),
        (None, "µs", "-"),
    ],
)
def test_figures_as_people_read_them(value: float | None, unit: str, told: str) -> None:
    assert human(value, unit) == told


@pytest.mark.parametrize("suffix", plot.SUFFIXES)
def test_a_picture_is_drawn(tmp_path: Path, suffix: str) -> None:
    results = [good(case) if case is not TCP else failed(case, "no answer") for case in CASES]
    file = tmp_path / f"bench{suffix}"
    plot.check(file)
    plot.draw(document(MACHINE, 5, results), file)
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert b"<!-- tap-64 -->" in content
        assert b"<!-- veth-tcp-1 -->" not in content


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case.unit == "packets/s"], ids=lambda case: str(case.name))
@pytest.mark.parametrize("vid", [None, 10])
def test_a_frame_has_the_size_and_the_checksum_of_its_case(case: Case, vid: int | None) -> None:
    data = frame(case, ONE, TWO, vid=vid)
    flags, _, _, _, start, offset = VNET_HDR.unpack_from(data)
    data = data[VNET_HDR.size :]
    packet = data[14 if vid is None else 18 :]
    assert len(data) == case.size
    assert checksum(packet[:20]) == 0
    assert int.from_bytes(packet[2:4], "big") == len(packet)
    assert packet[22:24] == b"\0\x09"  # to the discard port
    protocol, segment = packet[9], packet[20:]
    pseudo = packet[12:20] + bytes([0, protocol]) + len(segment).to_bytes(2, "big")
    if case.partial:
        assert (flags, data[start:]) == (NEEDS_CSUM, segment)
        assert int.from_bytes(segment[offset : offset + 2], "big") == checksum(pseudo) ^ 0xFFFF
    else:
        assert flags == 0
        assert checksum(pseudo + segment) == 0


def test_a_greeting_does_not_count() -> None:
    said = hello(*ONE)[len(NO_HEADER) :]
    assert said[:12] == b"\xff" * 6 + bytes.fromhex("020000000001")
    assert said[36:38] != b"\0\x09"


# --- tunnels -------------------------------------------------------------------------------------


def test_what_hosts_put_in_front_of_frames_is_vxlan_to_the_other_one() -> None:
    here, there = (Host(switch=Namespace(f"h{n}"), ports=("p",), number=n) for n in (0, 1))
    outside = here.outside(5010)
    assert len(outside) == ROOM
    assert outside[:12] == there.outside(5010)[6:12] + there.outside(5010)[:6]
    assert [ipaddress.ip_address(outside[at : at + 4]) for at in (26, 30)] == [
        ipaddress.ip_address(one) for one in (here.address, here.remote)
    ]
    assert struct.unpack_from("!HHHHII", outside, 34) == (49_152, 4789, 0, 0, 0x08000000, 5010 << 8)


# --- what the machine must have ------------------------------------------------------------------


def test_without_a_c_compiler_the_refusal_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(HostError, match="no C compiler; install one: apt-get install gcc libc6-dev"):
        Traffic(tmp_path)


def test_one_cpu_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    with pytest.raises(HostError, match="two CPUs"):
        Traffic(tmp_path)


def test_the_senders_compile_without_a_warning(tmp_path: Path) -> None:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "traffic"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- the command line ----------------------------------------------------------------------------

Bench = Callable[..., Outcome]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What the bench comes to instead of being run, by root."""
    outcomes = [Outcome(machine=MACHINE, rounds=5, results=tuple(good(case) for case in CASES))]

    def bench(effort: Effort, tell: Callable[[Step], None]) -> Outcome:
        tell(Step(case="tap-64", doing="round 1 of 5", done=1, total=9))
        return outcomes[0]

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(run, "bench", bench)
    return outcomes


def test_the_command_prints_a_table_and_says_where_it_is(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    assert command_line(["bench", "--quick", "--json", str(file), "--plot", str(tmp_path / "bench.svg")]) == 0
    told = capsys.readouterr()
    head, titles, *lines = told.out.splitlines()
    assert head == "2 × a CPU, 4 GiB, Linux 6.18"
    assert " ".join(titles.split()) == "CASE VXAGENT ÷ BRIDGE BRIDGE VXAGENT LIMIT A/A OVS ÷ BRIDGE"
    assert [line.split()[0] for line in lines] == [case.name for case in CASES]
    assert told.err == "tap-64: round 1 of 5\n"
    assert json.loads(file.read_text()) == document(MACHINE, 5, outcome[0].results)
    assert (tmp_path / "bench.svg").exists()


def test_json_may_go_to_stdout(outcome: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["bench", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == document(MACHINE, 5, outcome[0].results)


def test_an_invalid_case_ends_the_command_with_1_and_is_in_the_document(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    unlimited = replace(outcome[0].results[1], left_out=("limit: nothing arrived",))
    results = (failed(CASES[0], "bridge: no answer\nto a ping"), unlimited, *outcome[0].results[2:])
    outcome[0] = Outcome(machine=MACHINE, rounds=5, results=results)
    file = tmp_path / "bench.json"
    assert command_line(["bench", "--json", str(file)]) == 1
    told = capsys.readouterr()
    assert "vxagent: tap-64 is not valid: bridge: no answer to a ping\n" in told.err
    assert "vxagent: tap-1514-complete is without limit: nothing arrived\n" in told.err
    found = json.loads(file.read_text())["results"]
    assert [one["valid"] for one in found] == [False] + [True] * (len(CASES) - 1)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--plot b.pdf", 1, "plot 'b.pdf': must end in .svg or .png"),
        ("--json /nowhere/at/all/b.json", 1, "/nowhere/at/all is not there"),
        ("--on tap0", 2, "--on takes two devices"),
        ("--on tap0,tap0", 2, "--on takes two devices"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], words: str, code: int, says: str
) -> None:
    assert command_line(["bench", *words.split()]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"vxagent: {says}"), told.err
    assert told.err.count("\n") == 1


def test_a_picture_without_matplotlib_names_the_extra(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    assert command_line(["bench", "--plot", "b.svg"]) == 1
    assert "pip install 'vxagent[bench]'" in capsys.readouterr().err


def test_only_root_may_measure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command_line(["bench"]) == 1
    assert capsys.readouterr().err.endswith("run it as root\n")


def test_an_interrupted_bench_ends_as_shells_count(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(*_: object) -> Outcome:
        raise Interrupted(Stopped(15))

    monkeypatch.setattr(run, "bench", bench)
    assert command_line(["bench"]) == 143
    assert capsys.readouterr().err == "vxagent: interrupted (SIGTERM); the lab is gone\n"


def test_a_terminal_gets_a_bar_that_says_which_case_and_round(
    outcome: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert command_line(["bench"]) == 0
    assert "tap-64: round 1 of 5" in terminal.getvalue()

"""The parts of `vxagent bench --faults` that need no device: what the numbers come to, the frames, the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from support.vxlan import read_packet
from vxagent.bench.document import Machine
from vxagent.bench.faults import run
from vxagent.bench.faults.document import document, rows
from vxagent.bench.faults.efforts import FULL, QUICK, Effort
from vxagent.bench.faults.figures import Figures, Sent, Taken, judge
from vxagent.bench.faults.run import Outcome
from vxagent.bench.faults.stream import SOURCE, End, Stream
from vxagent.bench.faults.table import FAULTS
from vxagent.bench.faults.tunnel import Tunnel
from vxagent.bench.run import Step
from vxagent.lab.ping import checksum
from vxagent.lab.pump import VNET_HDR
from vxagent_cli.app import run as command_line

MACHINE = Machine(machine="2 × a CPU, 4 GiB", kernel="6.18", versions={"vxagent": "0"})
ONE, TWO = ("02:00:00:00:00:01", "10.0.0.1"), ("02:00:00:00:00:02", "10.0.0.2")
NAMES = ("a", "b")
SENT = Sent(frames=(100, 200), refused=(0, 0), ns=2_000_000)
ALL = Taken(received=(100, 200), duplicated=(0, 0), reordered=(0, 0))


def judged(taken: Taken, sent: Sent = SENT) -> Figures:
    return judge("reload", 3, NAMES, sent, taken)


# --- what the numbers come to ----------------------------------------------------------------------


def test_all_that_is_sent_and_received_once_in_its_order_is_good() -> None:
    found = judged(ALL)
    assert found.good
    assert found.valid
    assert (found.sent, found.lost, found.times, found.rate) == (300, 0, 3, 150_000)
    assert found.streams == {"a": (100, 0, 0, 0), "b": (200, 0, 0, 0)}


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        (replace(ALL, received=(99, 198)), "3 frames lost"),
        (replace(ALL, duplicated=(0, 2)), "2 frames duplicated"),
        (replace(ALL, reordered=(5, 0)), "5 frames reordered"),
        (replace(ALL, astray=1), "1 frames astray"),
    ],
)
def test_a_frame_to_which_something_happened_is_not_good(taken: Taken, says: str) -> None:
    found = judged(taken)
    assert (found.good, found.valid, found.why) == (False, True, says)


def test_a_receiver_without_room_makes_the_run_invalid_and_loses_nothing() -> None:
    found = judged(replace(ALL, received=(90, 200), overflow=10))
    assert (found.lost, found.overflow, found.valid, found.good) == (0, 10, False, False)
    assert found.why == "not valid: the receivers had no room for 10 frames"
    assert judged(replace(ALL, received=(90, 199), overflow=10)).lost == 1


def test_nothing_sent_shows_nothing() -> None:
    nothing = Taken(received=(0, 0), duplicated=(0, 0), reordered=(0, 0))
    found = judged(nothing, Sent(frames=(0, 0), ns=0))
    assert (found.good, found.why) == (False, "nothing was sent")


def test_what_is_not_refused_as_it_should_be_is_not_good() -> None:
    found = replace(judged(ALL), broken="`vxagent reload` was not refused")
    assert (found.good, found.why) == (False, "`vxagent reload` was not refused")


def test_what_cannot_be_done_here_is_no_failure() -> None:
    found = Figures(fault="out of memory, up", not_here="no memory cgroup can be made")
    assert found.good
    (row,) = rows([found])
    assert (row["fault"], row["lost"]) == ("out of memory, up (not here)", None)
    (result,) = document(MACHINE, 1, [found])["results"]
    assert result["not_here"] == "no memory cgroup can be made"


# --- faults and efforts ----------------------------------------------------------------------------


def test_a_full_run_has_the_counts_that_are_promised() -> None:
    times = {fault.name: fault.times(FULL) for fault in FAULTS}
    assert (times["SIGKILL, up"], times["reload"], times["other build, back"]) == (50, 100, 10)
    assert (FULL.away_s, FULL.ports, FULL.entries) == (60, 1000, 100_000)


def test_every_fault_has_a_name_of_its_own_a_sentence_and_is_done() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.does.endswith(".")
        assert 1 <= fault.times(QUICK) <= fault.times(FULL)


# --- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vid", "options"), [(None, False), (12, False), (None, True)])
def test_a_frame_has_64_bytes_and_room_for_its_number(vid: int | None, options: bool) -> None:
    stream = Stream(name="s", sender=ONE, receiver=TWO, source="tap:3", vid=vid, options=options)
    data = stream.frame()
    packet = data[14 if vid is None else 18 :]
    header = 4 * (packet[0] & 0x0F)
    assert len(data) == 64
    assert checksum(packet[:header]) == 0
    assert header == (24 if options else 20)
    assert int.from_bytes(packet[2:4], "big") == len(packet)
    assert int.from_bytes(packet[header + 4 : header + 6], "big") == len(packet) - header
    assert len(packet) - header - 8 >= 16
    assert stream.word == f"tap:3:{bytes(VNET_HDR.size).hex()}{data.hex()}"


def test_a_stream_from_another_host_is_sent_in_packets() -> None:
    tunnel = Tunnel(sender=("02:00:00:00:01:02", "192.0.2.2"), receiver=("02:00:00:00:01:01", "192.0.2.1"), vni=5012)
    stream = Stream(name="s", sender=ONE, receiver=TWO, source="packet:v1", tunnel=tunnel)
    packet = read_packet(bytes.fromhex(stream.word.removeprefix("packet:v1:")))
    assert packet is not None
    assert (packet.sender, packet.receiver, packet.vni) == ("192.0.2.2", "192.0.2.1", 5012)
    assert packet.frame == stream.frame()


def test_a_receiver_behind_a_veth_says_hello_without_a_virtio_header() -> None:
    assert End(where="packet:v2", streams=(0, 1), hello=b"\x01").word == "packet:v2:0,1:01"
    assert End(where="packet:v2", streams=(2,)).word == "packet:v2:2:"
    assert End(where="packet:v2", streams=(2,), vid=12).word == "packet:v2:2::12"


def test_sender_and_receiver_compile_without_a_warning(tmp_path: Path) -> None:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "stream"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- the command line ------------------------------------------------------------------------------


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What a run comes to instead of being done, by root."""
    outcomes = [Outcome(machine=MACHINE, rate=120_000, results=(judged(ALL),))]

    def run_faults(
        effort: Effort, tell: Callable[[Step], None], *, other: Path | None, broken: Sequence[Path]
    ) -> Outcome:
        assert (other, list(broken)) == (None, [])
        tell(Step(case="reload", doing="3 of 3" if effort is QUICK else "100 of 100", done=5, total=14))
        return outcomes[0]

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(run, "run_faults", run_faults)
    return outcomes


def test_the_command_prints_a_table_and_says_where_it_is(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "faults.json"
    assert command_line(["bench", "--faults", "--quick", "--json", str(file)]) == 0
    told = capsys.readouterr()
    head, titles, line = told.out.splitlines()
    assert head == "2 × a CPU, 4 GiB, Linux 6.18"
    assert titles.split() == (
        ["FAULT", "TIMES", "SENT", "LOST", "DUPLICATED", "REORDERED", "ASTRAY", "OVERFLOW", "FRAMES/S", "SECONDS"]
    )
    assert line.split() == ["reload", "3", "300", "0", "0", "0", "0", "0", "150,000", "0.0"]
    assert told.err == "reload: 3 of 3\n"
    assert json.loads(file.read_text()) == document(MACHINE, 120_000, outcome[0].results)


def test_a_frame_lost_ends_the_command_with_1(outcome: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    outcome[0] = replace(outcome[0], results=(judged(ALL), judged(replace(ALL, received=(100, 199)))))
    assert command_line(["bench", "--faults", "--json", "-"]) == 1
    told = capsys.readouterr()
    assert told.err == "reload: 100 of 100\nvxagent: reload: 1 frames lost\n"
    found = json.loads(told.out)["results"]
    assert [(one["lost"], one["good"]) for one in found] == [(0, True), (1, False)]


def test_a_run_that_was_too_slow_says_so(
    outcome: list[Outcome], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slow = judged(replace(ALL, realtime=False), replace(SENT, ns=30_000_000))
    outcome[0] = replace(outcome[0], results=(slow,))
    file = tmp_path / "faults.json"
    assert command_line(["bench", "--faults", "--json", str(file)]) == 0
    told = capsys.readouterr()
    assert "vxagent: reload: without real-time priority" in told.err
    assert "vxagent: reload: only 10,000 frames/s could be sent\n" in told.err
    assert told.out.splitlines()[-1].startswith("reload (slow) ")
    (result,) = json.loads(file.read_text())["results"]
    assert (result["good"], result["slow"]) == (True, list(slow.slow))
    assert [why.split()[0] for why in slow.slow] == ["without", "only"]


@pytest.mark.parametrize(("ns", "slow"), [(3_000_000, ()), (3_000_030, ("only 99,999 frames/s could be sent",))])
def test_a_hundred_thousand_frames_a_second_are_enough(ns: int, slow: tuple[str, ...]) -> None:
    found = judged(ALL, replace(SENT, ns=ns))
    assert (found.good, found.slow) == (True, slow)


@pytest.mark.parametrize("words", ["--plot b.svg", "--on tap0,tap1"])
@pytest.mark.usefixtures("outcome")
def test_what_belongs_to_the_comparison_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["bench", "--faults", *words.split()]) == 2
    assert capsys.readouterr().err.startswith("vxagent: --faults has no picture and devices of its own")


@pytest.mark.parametrize("option", ["--other-build", "--broken-build"])
@pytest.mark.usefixtures("outcome")
def test_another_build_that_is_none_is_refused(option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command_line(["bench", "--faults", option, str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"vxagent: {tmp_path} has no package vxagent")


@pytest.mark.parametrize("option", ["--other-build", "--broken-build"])
@pytest.mark.usefixtures("outcome")
def test_another_build_belongs_to_the_faults(option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command_line(["bench", option, str(tmp_path)]) == 2
    assert f"{option} goes with --faults" in capsys.readouterr().err

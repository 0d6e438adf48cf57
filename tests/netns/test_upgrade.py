"""Builds take over from each other under traffic: other programs, other tables, back again, and such as do not work.

   a            b            c (veth)     d (veth)
   │ tap        │ tap        │            │            segment blue (VLAN 10), nobody lists a MAC
┌──┴────────────┴────────────┴────────────┴──┐
│  ta           tb           vc           vd ├── up0 ── fabric
└────────────────────────────────────────────┘
   streams: a → b by XDP; c → d and d → c by tc; c → fabric and back, tagged
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.builds import DROPS_ALL, FAILS_THE_VERIFIER, OTHER_TABLES, make_build
from support.lan import Lan
from support.sequence import Stream, frame, packet_socket
from vxagent.lab.namespaces import CommandFailed, Namespace
from vxagent.lab.tap import open_tap
from vxagent.lab.waiting import wait_until
from vxagent.runtime.periods import PERIODS

pytestmark = pytest.mark.alone  # streams of 2,000 frames/s, of which none may be lost

MACS = {name: f"02:00:00:00:01:{number:02x}" for number, name in enumerate("abcdf", 1)}
TAG = struct.pack("!HH", 0x8100, 10)
RATE = 2000
QUEUE = 20_000

# CI has a few of them, `make upgrade` all
RELOADS = int(os.environ.get("RELOADS", "5"))
UPGRADES = int(os.environ.get("UPGRADES", "1"))


class Rack:
    """What the picture shows. Close it."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self._stack = ExitStack()
        lan.segment("blue", vlan=10)
        self.ends: dict[str, int] = {}
        self._namespaces: dict[str, Namespace] = {}
        for name in "ab":
            self.ends[name] = open_tap(lan.switch, f"t{name}", offloads=False)
            self._stack.callback(os.close, self.ends[name])
            lan.switch.ip("link", "set", f"t{name}", "txqueuelen", str(QUEUE), "up")
            lan.attach(f"t{name}", "blue")
        for name in "cd":
            self._veth(lan.world.namespace(name), name, f"v{name}")
            lan.attach(f"v{name}", "blue")
        self._veth(lan.world.namespace("fabric"), "f", "up0")
        lan.agent.cli("uplink", "add", "up0")
        for _ in range(3):
            self.announce()
        wait_until(lambda: self.knows() >= set(MACS.values()), what="all five stations are learned")

    def _veth(self, namespace: Namespace, name: str, port: str) -> None:
        self.lan.switch.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
        namespace.ip("link", "set", "eth0", "up")
        self.lan.switch.ip("link", "set", port, "up")
        namespace.wait_running("eth0")
        self._namespaces[name] = namespace
        self.ends[name] = self._socket(name)
        self._stack.callback(os.close, self.ends[name])

    def _socket(self, name: str) -> int:
        with self._namespaces[name].entered():
            return packet_socket("eth0").detach()

    def close(self) -> None:
        """End what was started."""
        self._stack.close()

    def write(self, name: str, data: bytes) -> None:
        """Send a frame from one of the ends."""
        os.write(self.ends[name], (bytes(10) if name in "ab" else b"") + data)

    def announce(self) -> None:
        """Everybody says who it is."""
        for name, mac in MACS.items():
            self.write(name, frame(mac, "ff:ff:ff:ff:ff:ff", tag=TAG if name == "f" else b""))

    def knows(self) -> set[str]:
        """The MACs in the FDB."""
        return {row["mac"] for row in self.lan.client.get("v1", "fdb", segment="blue")}

    def stream(self, source: str, target: str) -> Stream:
        """Numbered frames; they end with the rack."""
        into = os.dup(self.ends[target]) if target in "ab" else self._socket(target)
        made = Stream(
            self.ends[source],
            into,
            frame(MACS[source], MACS[target], tag=TAG if source == "f" else b""),
            is_tap=(source in "ab", target in "ab"),
            per_second=RATE,
        )
        os.close(into)
        self._stack.callback(made.kill)
        return made


@pytest.fixture
def rack(lan: Lan) -> Iterator[Rack]:
    """Devices, ports, and stations that are known."""
    made = Rack(lan)
    yield made
    made.close()


class Learners:
    """New stations behind port vd, all the time, each of which says who it is once."""

    def __init__(self, rack: Rack) -> None:
        self._rack = rack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.said: list[str] = []

    def __enter__(self) -> Learners:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set() and len(self.said) < 900:
            number = len(self.said)
            mac = f"02:00:00:00:{0x20 + (number >> 8):02x}:{number & 0xFF:02x}"
            self._rack.write("d", frame(mac, MACS["c"]))
            self.said.append(mac)
            time.sleep(0.02)


AT_XDP = {"ta", "tb"}
STREAMS = (("a", "b"), ("c", "d"), ("d", "c"), ("c", "f"), ("f", "c"))


@contextmanager
def watched(rack: Rack) -> Iterator[None]:
    """Nothing is lost, doubled or overtaken while this lasts, and it goes on afterwards, by XDP where it did."""
    streams = {pair: rack.stream(*pair) for pair in STREAMS}
    assert _at_xdp(rack.lan) == AT_XDP
    _flow_on(rack.lan)
    yield
    _flow_on(rack.lan)
    assert _at_xdp(rack.lan) == AT_XDP
    ended = {pair: stream.finish() for pair, stream in streams.items()}
    for pair, (sent, heard) in ended.items():
        assert sent > RATE // 2, f"{pair}: the sender sent {sent}"
        assert (heard.received, heard.lost, heard.duplicated, heard.reordered) == (sent, 0, 0, 0), f"{pair}: {heard}"


def _at_xdp(lan: Lan) -> set[str]:
    """The ports where XDP runs, as the agent says and the kernel has it."""
    says = {row["id"] for row in lan.client.get("v1", "ports") if row["hook"] == "xdp+tc"}
    return {row["ifname"] for row in lan.links() if "xdp" in row} & says


def _flow_on(lan: Lan) -> None:
    """Half a second's frames of every stream are seen by the switch."""
    before = {port: lan.received(port) for port in ("ta", "vc", "vd", "up0")}
    wait_until(
        lambda: all(lan.received(port) > count + RATE // 2 for port, count in before.items()),
        within=20,
        what="frames of all senders",
    )


def forwarded(lan: Lan, port: str) -> int:
    """Frames that a port has brought so far."""
    return lan.received(port)


def drops(lan: Lan) -> int:
    """Of all ports."""
    return sum(row["packets"] for row in lan.client.get("v1", "drops"))


def up(rack: Rack, build: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the agent that runs and start one of this build (None: the tree's)."""
    rack.lan.agent.cli("stop")
    with monkeypatch.context() as environment:
        if build is not None:
            environment.setenv("PYTHONPATH", str(build))
        rack.lan.agent.up()
    assert _at_xdp(rack.lan) == AT_XDP


def layouts(lan: Lan) -> list[str]:
    """The sets of tables that are pinned."""
    return sorted(path.name for path in (lan.agent.run_dir / "bpf").glob("v*"))


def test_other_tables_take_over_and_back_under_traffic(
    rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lan = rack.lan
    build = make_build(tmp_path / "other", OTHER_TABLES)
    rack.write("a", frame(MACS["a"], MACS["b"], tag=TAG))  # a drop, so that there is one to be kept
    wait_until(lambda: drops(lan) == 1, what="one drop")
    with Learners(rack) as learners, watched(rack):
        for number in range(1, 2 * UPGRADES, 2):
            up(rack, build, monkeypatch)
            assert layouts(lan) == [f"v2-{number}"]
            up(rack, None, monkeypatch)
            assert layouts(lan) == [f"v1-{number + 1}"]
    assert rack.knows() >= {*MACS.values(), *learners.said}
    assert learners.said
    assert drops(lan) == 1
    sent = lan.statistics("vd")["rx"]
    wait_until(
        lambda: forwarded(lan, "vd") == sent, what=f"all {sent} frames of vd are counted, not {forwarded(lan, 'vd')}"
    )
    # What was learned while entries were counted anew is counted at the next look for aged ones.
    wait_until(
        lambda: lan.show("vd")["learned"] == len(learners.said) + 1, within=PERIODS.ageing_longest_s + 10, what="quota"
    )


def test_the_room_of_the_fdb_changes_by_reload_and_up(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    lan = rack.lan
    with Learners(rack) as learners, watched(rack):
        for entries in (4096, 8192):
            lan.agent.config_file.write_text(f"fdb_entries = {entries}\n")
            lan.agent.cli("reload")
        lan.agent.config_file.write_text("fdb_entries = 2048\n")
        up(rack, None, monkeypatch)
    assert rack.knows() >= {*MACS.values(), *learners.said}
    assert layouts(lan) == ["v1-3"]


def test_reloads_under_traffic(rack: Rack) -> None:
    with Learners(rack) as learners, watched(rack):
        for _ in range(RELOADS):
            rack.lan.agent.cli("reload")
    assert rack.knows() >= {*MACS.values(), *learners.said}


def test_a_port_that_has_lost_xdp_is_found_out(rack: Rack) -> None:
    with pytest.raises(AssertionError, match="'ta'"), watched(rack):
        rack.lan.agent.cli("port", "set", "ta", "--hook", "tc")


def test_another_build_can_take_it_all_away(rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lan = rack.lan
    build = make_build(tmp_path / "other", OTHER_TABLES)
    lan.agent.cli("stop")
    with monkeypatch.context() as environment:
        environment.setenv("PYTHONPATH", str(build))
        lan.agent.cli("down")
    assert layouts(lan) == []
    assert "xdp" not in lan.device("ta")
    lan.agent.up()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (FAILS_THE_VERIFIER, "cannot load program vx_xdp"),
        (DROPS_ALL, "do not pass their probe: a frame to a known station"),
    ],
    ids=["the verifier refuses it", "it drops all"],
)
@pytest.mark.parametrize("tables", [(), OTHER_TABLES], ids=["the same tables", "other tables"])
def test_a_build_that_does_not_work_changes_nothing(
    changes: tuple[tuple[str, str, str], ...],
    tables: tuple[tuple[str, str, str], ...],
    says: str,
    rack: Rack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lan = rack.lan
    build = make_build(tmp_path / "broken", (*tables, *changes))
    with watched(rack):
        with pytest.raises(CommandFailed, match=says) as failed:
            up(rack, build, monkeypatch)
        assert failed.value.code == 1
        assert layouts(lan) == ["v1"]
        lan.agent.up()
    assert rack.knows() >= set(MACS.values())

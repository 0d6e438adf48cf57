"""`make soak`, its short form: nothing grows, and what would is found out.

The long form also takes from the agent what it needs, which `test_faults.py` does here.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator

import pytest

from soak.lab import SoakLab
from soak.run import Soak
from support.lan import clean_world
from vxagent.datapath import bpf
from vxagent.datapath.bpf_map import Map, MapSpec, MapType

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

SEED = os.environ.get("VXAGENT_SEED") or secrets.token_hex(4)
ROUND_S = 4.0
LEAKED = MapSpec(name="leaked", type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1)


@pytest.fixture(scope="module")
def lab() -> Iterator[SoakLab]:
    """One for all tests: each leaves it as it should be."""
    print(f"VXAGENT_SEED={SEED}")  # noqa: T201  # pytest shows it with a failure
    with clean_world() as world:
        yield SoakLab(world)


@pytest.fixture(scope="module")
def soak(lab: SoakLab) -> Soak:
    """Warm."""
    soak = Soak(lab, SEED, lacks=False)
    warm = soak.warm_up()
    assert warm.wrong == ()
    return soak


@pytest.mark.parametrize("restarts", [True, False], ids=["with restarts", "without"])
def test_nothing_is_lost_and_nothing_grows(soak: Soak, restarts: bool) -> None:
    found = soak.round("1", ROUND_S, restarts=restarts)
    assert found.wrong == ()
    assert found.operations > 0
    assert found.figures.sent > 0


def test_a_new_agent_has_what_the_old_one_had(soak: Soak) -> None:
    assert soak.fresh().wrong == ()


# --- what is no pass -------------------------------------------------------------------------------


def wrong(soak: Soak) -> list[str]:
    """What a sample finds."""
    return soak.sample(within=0)[1]


def test_a_descriptor_too_many_is_found_out(lab: SoakLab, soak: Soak) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(lab.agent.run_dir / "api.sock"))
        fds = soak.warm.exact["fds"]
        assert wrong(soak) == [f"fds: {fds + 1}, not {fds}"]
    assert soak.sample()[1] == []


def test_a_map_that_stays_pinned_is_found_out(lab: SoakLab, soak: Soak) -> None:
    pin = lab.agent.run_dir / "bpf" / "leaked"
    with Map.create(LEAKED) as leaked:
        bpf.pin(leaked.fd, pin)
    try:
        maps, pins = soak.warm.exact["maps"], soak.warm.exact["pins"]
        assert wrong(soak) == [f"maps: {maps + 1}, not {maps}", f"pins: {pins + 1}, not {pins}"]
    finally:
        pin.unlink()
    assert soak.sample()[1] == []


def test_a_map_that_is_the_switchs_no_more_and_stays_is_found_out(lab: SoakLab, soak: Soak) -> None:
    pin = lab.agent.run_dir / "bpf" / "leaked"
    with Map.create(LEAKED) as leaked:
        bpf.pin(leaked.fd, pin)
        lab.note()
        pin.unlink()
        assert wrong(soak) == [f"map {leaked.id} is no longer the switch's, and still there"]
    assert soak.sample()[1] == []


def test_a_row_that_stays_is_found_out(lab: SoakLab, soak: Soak) -> None:
    entry = ("02:00:00:00:00:77", "--segment", "grey")
    lab.agent.cli("fdb", "add", *entry, "--port", "many")
    found = wrong(soak)
    rows, entries = soak.warm.exact["rows"], soak.warm.entries["fdb"]
    assert f"rows: {rows + 1}, not {rows}" in found
    assert f"entries of fdb: {entries + 1}, not {entries}" in found
    assert "`export` is another document" in found
    lab.back()
    assert soak.sample()[1] == []


def test_a_device_that_stays_is_found_out(lab: SoakLab, soak: Soak) -> None:
    lab.switch.ip("link", "add", "left", "type", "veth", "peer", "name", "over")
    try:
        devices = soak.warm.exact["devices"]
        assert wrong(soak) == [f"devices: {devices + 2}, not {devices}"]
    finally:
        lab.switch.ip("link", "del", "left")


def test_an_operation_that_does_not_work_ends_the_round(
    lab: SoakLab, soak: Soak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak.operations, "some", lambda *_, **__: lab.agent.kill())
    found = soak.round("1", 0, restarts=False)
    assert found.sample is None
    assert "no agent answers" in found.wrong[0]
    lab.agent.up()

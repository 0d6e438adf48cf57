"""MACs that are learned too fast, and MACs that move too often.

   a              b              c
┌──────┐       ┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │    b says now and then that it has a's MAC
└──┬───┘       └──┬───┘       └──┬───┘
┌──┴──────────────┴──────────────┴───┐
│  veth           veth           tap │    each test has a segment of its own
└────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.hearing import Party, frame, ports_of, who_hears
from support.lan import Lan, running_lan
from vxagent.lab.frames import BROADCAST
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

OFTEN = 10  # times that two VMs claim a MAC by turns; the sixth move is one too many


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A segment of its own."""
    return lan.new_segment()


@dataclass(frozen=True)
class Trio:
    """The VMs in the drawing."""

    segment: str
    a: VethVm
    b: VethVm
    c: TapVm


@pytest.fixture
def trio(lan: Lan, blue: str) -> Trio:
    a, b = lan.veths(blue, 2)
    [c] = lan.taps(blue, 1)
    return Trio(blue, a, b, c)


def claim(lan: Lan, mac: str, vm: Party) -> None:
    """A VM says that a MAC is its own, and the switch has heard it."""
    who_hears(lan, vm, frame(BROADCAST, mac))


def flap(lan: Lan, trio: Trio) -> None:
    """Both have a's MAC, by turns, and often."""
    for _ in range(OFTEN):
        claim(lan, trio.a.mac, trio.a)
        claim(lan, trio.a.mac, trio.b)


def owner(lan: Lan, trio: Trio) -> str:
    entry = lan.entry(trio.segment, trio.a.mac)
    assert entry is not None
    return str(entry["port"])


# --- hold-down ------------------------------------------------------------------------------------


def test_a_mac_that_flaps_stays_with_who_had_it(lan: Lan, trio: Trio) -> None:
    flap(lan, trio)
    entry = lan.entry(trio.segment, trio.a.mac)
    assert entry is not None
    assert entry["port"] == trio.a.port
    assert 0 < entry["held_s"] <= 60
    assert who_hears(lan, trio.c, frame(trio.a.mac, trio.c.mac), trio.a, trio.b) == ports_of(trio.a)
    assert (lan.show(trio.b.port)["held"], lan.drops(trio.b.port)) == (1, {})


def test_a_mac_that_moves_now_and_then_is_not_held(lan: Lan, trio: Trio) -> None:
    for vm in (trio.a, trio.b, trio.a, trio.b):
        claim(lan, trio.a.mac, vm)
    entry = lan.entry(trio.segment, trio.a.mac)
    assert entry is not None
    assert (entry["port"], entry["held_s"]) == (trio.b.port, None)


def test_in_a_hold_the_neighbour_keeps_its_traffic(lan: Lan, trio: Trio) -> None:
    assert ping(trio.c.namespace, trio.a.address).lost == []
    flap(lan, trio)
    pinger = Pinger(trio.c.namespace, trio.a.address, interval=0.003).start()

    def goes_on() -> bool:
        send_frames(trio.b.namespace, NIC, frame(BROADCAST, trio.a.mac))
        return pinger.pings.received > 100

    wait_until(goes_on, what="a answers c")
    assert pinger.stop().lost == []


def test_a_hold_is_logged_once_with_both_ports(lan: Lan, trio: Trio) -> None:
    flap(lan, trio)
    said = f"MAC {trio.a.mac} of segment {trio.segment} moved too often between ports {trio.a.port} and {trio.b.port}: "
    wait_until(lambda: said in lan.agent.log(), what="the hold is logged")
    flap(lan, trio)
    claim(lan, trio.a.mac, trio.c)
    lan.agent.cli("port", "set", trio.c.port, "--max-macs", "0")
    claim(lan, "02:00:00:04:00:01", trio.c)
    wait_until(lambda: f"port {trio.c.port} may learn no more MACs" in lan.agent.log(), what="a later event is logged")
    assert lan.agent.log().count(f"MAC {trio.a.mac} of segment {trio.segment} moved too often") == 1


def test_a_hold_needs_no_agent_and_outlives_one(lan: Lan, trio: Trio) -> None:
    claim(lan, trio.a.mac, trio.a)
    lan.agent.kill()
    for _ in range(OFTEN):
        for vm in (trio.b, trio.a):
            send_frames(vm.namespace, NIC, frame(BROADCAST, trio.a.mac))
    lan.agent.up()
    claim(lan, trio.a.mac, trio.b)
    entry = lan.entry(trio.segment, trio.a.mac)
    assert entry is not None
    assert entry["port"] == trio.a.port
    assert entry["held_s"] > 0


@pytest.mark.parametrize("how", ["flush --segment {segment}", "flush --port {port}"])
def test_a_flush_lifts_a_hold(lan: Lan, trio: Trio, how: str) -> None:
    flap(lan, trio)
    assert owner(lan, trio) == trio.a.port
    lan.agent.cli("fdb", *how.format(segment=trio.segment, port=trio.a.port).split())
    claim(lan, trio.a.mac, trio.b)
    assert owner(lan, trio) == trio.b.port


def test_a_static_entry_ends_a_hold(lan: Lan, trio: Trio) -> None:
    flap(lan, trio)
    for word in (["add", "--port", trio.b.port], ["del"]):
        lan.agent.cli("fdb", word[0], trio.a.mac, "--segment", trio.segment, *word[1:])
    for vm in (trio.a, trio.b):
        claim(lan, trio.a.mac, vm)
    assert owner(lan, trio) == trio.b.port


# --- the rate of learning -------------------------------------------------------------------------

MANY = 40


def speak_as_many(lan: Lan, vm: VethVm, prefix: str, listener: VethVm) -> None:
    """So many MACs send a frame each from one port, all at once."""
    before = lan.received(vm.port)
    send_frames(vm.namespace, NIC, *(frame(listener.mac, f"{prefix}:{n:02x}") for n in range(MANY)))
    wait_until(lambda: lan.received(vm.port) >= before + MANY, what="all frames have a verdict")


def test_a_port_learns_no_faster_than_it_may_and_its_frames_go_on(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    claim(lan, b.mac, b)
    lan.agent.cli("port", "set", a.port, "--learn-rate", "1")
    before = lan.show(a.port)
    speak_as_many(lan, a, "02:00:00:02:00", b)
    after = lan.show(a.port)
    assert after["learned"] - before["learned"] < MANY / 2
    assert after["learned"] - before["learned"] + after["limited"] - before["limited"] >= MANY
    assert after["verdicts"]["forwarded"] - before["verdicts"]["forwarded"] == MANY
    assert after["drops"] == 0
    wait_until(lambda: f"port {a.port} may learn no more MACs: 02:00:00:02:00:" in lan.agent.log())


def test_the_rate_of_learning_is_lifted_live(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    lan.agent.cli("port", "set", a.port, "--learn-rate", "1")
    lan.agent.cli("port", "set", a.port, "--no-learn-rate")
    speak_as_many(lan, a, "02:00:00:03:00", b)
    learned = [n for n in range(MANY) if lan.entry(blue, f"02:00:00:03:00:{n:02x}")]
    assert learned == list(range(MANY))
    assert lan.show(a.port)["learn_rate"] is None

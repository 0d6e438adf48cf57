"""Rates and storm limits on real devices. What is asserted is a ratio within one run: what arrived to what may."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.hearing import frame
from support.lan import Lan, running_lan
from support.rates import UdpRate, UdpSink, blasting
from vxagent.lab.frames import BROADCAST, Frame
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import iperf3, send_frames
from vxagent.lab.vm import NIC, Endpoint, TapVm, VethVm
from vxagent.lab.waiting import wait_until

MULTICAST, NOBODY = "01:00:5e:01:02:03", "02:00:00:00:99:99"
# A busy machine gives a sender less than its rate, never more. How near a rate is reached `make rates` prints; a bucket
# that is too small shows as a collapse of TCP to a tenth.
ENOUGH, UDP_MOST, TCP_MOST = 0.3, 1.05, 1.15


pytestmark = pytest.mark.alone  # what gets through is measured


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file; each uses a segment of its own."""
    with running_lan() as lan:
        yield lan


@pytest.fixture
def blue(lan: Lan) -> str:
    """A new segment."""
    return lan.new_segment()


def udp_rate(
    lan: Lan, sender: VethVm, receiver: Endpoint, *, size: int = 1400, segments: int = 1, seconds: float = 0.6
) -> UdpRate:
    """What arrives of a blast, once the bucket is empty."""
    ping(sender.namespace, receiver.address, count=1)
    with (
        UdpSink(receiver.namespace, receiver.address, size=size) as sink,
        blasting(sender.namespace, sink, segments=segments),
    ):
        wait_until(lambda: "rate_limited" in lan.drops(sender.port), what="the bucket is empty")
        return sink.measure(seconds=seconds)


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize(("rate", "bits", "size"), [("1Mbit", 10**6, 200), ("100Mbit", 10**8, 1400)])
def test_udp_gets_the_rate_that_is_set(lan: Lan, blue: str, way: str, rate: str, bits: int, size: int) -> None:
    a, b = lan.veths(blue, 2)
    lan.agent.cli("port", "set", a.port if way == "in" else b.port, f"--rate-{way}", rate)
    assert ENOUGH < udp_rate(lan, a, b, size=size).bits / bits < UDP_MOST


def test_udp_gets_the_packets_that_are_set(lan: Lan, blue: str) -> None:
    a = lan.veth(lan.unique("v"), blue, rate_in="1Gbit,2kpps")
    [b] = lan.veths(blue, 1)
    assert ENOUGH < udp_rate(lan, a, b, size=100).packets / 2000 < UDP_MOST


def test_gso_frames_are_charged_for_what_they_carry(lan: Lan, blue: str) -> None:
    """50 datagrams of 100 bytes travel as one frame; on the wire each has headers of its own."""
    a = lan.veth(lan.unique("v"), blue, rate_in="20Mbit")
    [b] = lan.veths(blue, 1)
    assert ENOUGH < udp_rate(lan, a, b, size=100, segments=50).bits / 20_000_000 < UDP_MOST
    c = lan.veth(lan.unique("v"), blue, rate_in="20kpps")
    assert ENOUGH < udp_rate(lan, c, b, size=100, segments=50).packets / 20_000 < UDP_MOST


@pytest.mark.parametrize("way", ["in", "out"])
def test_tcp_gets_the_rate_that_is_set(lan: Lan, blue: str, way: str) -> None:
    """GSO and all; the short form of `make rates`."""
    a, b = lan.veths(blue, 2)
    lan.agent.cli("port", "set", a.port if way == "in" else b.port, f"--rate-{way}", "100Mbit")
    assert ENOUGH < iperf3(a.namespace, b.namespace, b.address, seconds=3) / 10**8 < TCP_MOST


def test_buckets_are_each_port_s_own(lan: Lan, blue: str) -> None:
    """While a port is far beyond its rate, another one with the same rate loses nothing."""
    a = lan.veth(lan.unique("v"), blue, rate_in="1Mbit")
    b = lan.veth(lan.unique("v"), blue, rate_in="1Mbit")
    [c] = lan.veths(blue, 1)
    ping(a.namespace, c.address, count=1)
    with UdpSink(c.namespace, c.address, size=1400) as sink, blasting(a.namespace, sink):
        wait_until(lambda: "rate_limited" in lan.drops(a.port), what="the bucket is empty")
        assert ping(b.namespace, c.address, count=50, interval=0.005).lost == []
    assert lan.drops(b.port) == {}


# --- storms ---------------------------------------------------------------------------------------

ALLOWED = 40
DESTINATIONS = {"broadcast": BROADCAST, "multicast": MULTICAST, "unknown": NOBODY}


def storm(lan: Lan, sender: VethVm | TapVm, receiver: VethVm, destination: str, count: int) -> tuple[int, float]:
    """How many of so many frames arrive that are sent at once, and how many seconds that took."""
    sent = [frame(destination, sender.mac) for _ in range(count)]
    with Sniffer(receiver.namespace, NIC) as sniffer:
        before = lan.received(sender.port)
        begun = time.monotonic()
        send_frames(sender.namespace, NIC, *sent)
        wait_until(lambda: lan.received(sender.port) >= before + count, what="all frames have a verdict")
        took = time.monotonic() - begun
        last = frame(BROADCAST, "02:ff:ff:ff:ff:ff")
        send_frames(lan.switch, receiver.port, last)
        sniffer.wait_for(lambda arrived: arrived.data == last)
        return len(sniffer.frames(lambda arrived: _is_one_of(arrived, sent))), took


def _is_one_of(arrived: Frame, sent: list[bytes]) -> bool:
    return any(arrived.data.startswith(one.rstrip(b"\0")) for one in sent)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_storm_limit_lets_a_second_s_worth_through(lan: Lan, blue: str, kind: str) -> None:
    a = lan.veth(lan.unique("v"), blue)
    lan.agent.cli("port", "set", a.port, f"--storm-{kind}", str(ALLOWED))
    [b] = lan.veths(blue, 1)
    others = set(DESTINATIONS) - {kind}
    arrived, took = storm(lan, a, b, DESTINATIONS[kind], 3 * ALLOWED)
    assert ALLOWED - 5 <= arrived <= ALLOWED * (1 + took) + 1  # a VM may have sent some of its own before
    assert lan.drops(a.port).keys() == {"storm_limited"}
    for other in others:
        assert storm(lan, a, b, DESTINATIONS[other], 3 * ALLOWED)[0] == 3 * ALLOWED


def test_a_copy_beyond_the_rate_of_its_port_is_not_made(lan: Lan, blue: str) -> None:
    """The others get theirs, and the counters add up: copies made, and copies that were not."""
    a, b = lan.veths(blue, 2)
    c = lan.veth(lan.unique("v"), blue, rate_out="1pps")  # 64 at once
    count = 200
    before, made = lan.show(c.port), lan.show(a.port)["copies"]
    assert storm(lan, a, b, BROADCAST, count)[0] == count
    [lost] = [row for row in lan.client.get("v1", "drops", port=c.port) if row["copies"]]
    after = lan.show(c.port)
    got = after["tx_packets"] - before["tx_packets"]
    assert (lost["reason"], lost["segment"]) == ("rate_limited", blue)
    assert 60 <= got <= 70
    assert got + lost["packets"] >= count
    assert lan.show(a.port)["copies"] - made == count + got
    assert (after["rx_packets"], after["drops"]) == (before["rx_packets"], before["drops"])


# --- live -----------------------------------------------------------------------------------------


def test_a_rate_that_changes_loses_no_frame(lan: Lan, blue: str) -> None:
    a, b = lan.veths(blue, 2)
    ping(a.namespace, b.address, count=1)
    for options in (
        ("--rate-in", "10Mbit"),
        ("--rate-in", "1kpps", "--rate-out", "1Gbit"),
        ("--storm-broadcast", "10", "--rate-in", "1kbit"),
        ("--rate-in", "1Gbit"),
        ("--no-rate-in", "--no-rate-out", "--no-storm-broadcast"),
    ):
        lan.agent.cli("port", "set", a.port, *options)
        assert ping(a.namespace, b.address, count=20, interval=0.002).lost == []


def test_a_bucket_stays_empty_over_reload_and_the_death_of_the_agent(lan: Lan, blue: str) -> None:
    a = lan.veth(lan.unique("v"), blue, rate_in="1pps")  # 64 at once, all back after 64 s
    [b] = lan.veths(blue, 1)
    begun = time.monotonic()
    arrived = [storm(lan, a, b, BROADCAST, 100)[0]]
    lan.agent.cli("reload")
    arrived.append(storm(lan, a, b, BROADCAST, 100)[0])
    lan.agent.kill()
    lan.agent.up()
    arrived.append(storm(lan, a, b, BROADCAST, 100)[0])
    assert 50 <= arrived[0] <= 66
    assert sum(arrived) <= 64 + (time.monotonic() - begun) + 1

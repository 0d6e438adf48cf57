"""Step 11 and the rate of step 15: what a port may bring and get in a second.

No test waits for a bucket to fill. Limits are so slow that nothing flows back while a test runs, and a bucket's level
is written into the map before and read from it afterwards: its word is the time at which it will be full.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import fields

import pytest

from support.frames import BROADCAST, L3, MULTICAST, arp, ethernet, ipv4, ipv6, mac, payload, tcp, udp, vlan
from support.outcome import FLOODED, FORWARDED
from support.place import Place
from support.rig import skb
from support.rows import Row, Way, check, rows
from support.world import BLUE, World, blue, counter
from vxagent.core.effects import ClearCounters, PutRow
from vxagent.core.tables import LimitsRow, PortFlag, SegmentFlag, Table
from vxagent.datapath import abi
from vxagent.datapath.abi import DropKind
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

TICKS_PER_NS, TICKS_PER_S = 16, 16 * 10**9  # rate.h
BURST_BITS, BURST_PACKETS = 128 * 1024 * 8, 64
SLOW = 1_000  # bit/s: a bucket of 128 KiB is full again after 17 minutes
RARE = 1  # packets/s: one of 64 after a minute
RATES = {"in_bits": SLOW, "in_packets": RARE, "out_bits": SLOW, "out_packets": RARE}
STORMS = {"broadcast": 1, "multicast": 1, "unknown": 1}
OUT = ("out_bits", "out_packets")

FRAME = ethernet(mac(2), mac(1))
UNKNOWN = ethernet(mac(99), mac(1))
TO_ALL, TO_GROUP = ethernet(BROADCAST, mac(1)), ethernet(MULTICAST, mac(1))
EVERYBODY_ELSE = (2, 3, 4, 6, 7, 8, 9, 10)


def limit(world: World, port: int, **limits: int) -> None:
    """Give a port these limits, and no others."""
    row = LimitsRow(**limits)
    flags = world.ports[port].flags & ~(PortFlag.LIMITED_IN | PortFlag.LIMITED_OUT)
    flags |= PortFlag.LIMITED_IN if set(limits) - set(OUT) else PortFlag(0)
    flags |= PortFlag.LIMITED_OUT if set(limits) & set(OUT) else PortFlag(0)
    world.rig.put(Table.LIMITS, port, row)
    world.set_port(port, flags=flags)


def buckets(world: World, port: int) -> dict[str, int]:
    """Limit → the time in ticks at which its bucket is full."""
    return abi.BUCKETS.unpack(world.rig.maps["buckets"].lookup(struct.pack("=I", port)) or b"")


def fill(world: World, port: int, **missing_s: float) -> None:
    """Say how long each bucket of a port takes to be full; those not named are."""
    now = time.monotonic_ns() * TICKS_PER_NS
    words = {name: now + int(seconds * TICKS_PER_S) for name, seconds in missing_s.items()}
    world.rig.maps["buckets"].update(struct.pack("=I", port), abi.BUCKETS.pack(**words))


def burst_s(name: str, rate: int) -> float:
    """How long an empty bucket of that limit takes."""
    if name in STORMS:
        return 1.0
    return max(0.25, (BURST_BITS if name.endswith("bits") else BURST_PACKETS) / rate)


def empty(port: int, **limits: int) -> Callable[[World], None]:
    """Limits whose buckets are empty, with room to spare for a slow machine."""

    def prepare(world: World) -> None:
        limit(world, port, **limits)
        fill(world, port, **{name: 1.5 * burst_s(name, rate) for name, rate in limits.items()})

    return prepare


def full(port: int, **limits: int) -> Callable[[World], None]:
    """Limits whose buckets are full."""
    return lambda world: limit(world, port, **limits)


def flooded(frame: bytes, *ports: int) -> dict[int, bytes]:
    """Port → the copy of an untagged frame in blue."""
    return {
        port: frame[:12] + vlan(vid) + frame[12:] if vid else frame
        for port, vid in blue(*(ports or EVERYBODY_ELSE)).items()
    }


KNOWN = ((BLUE, 2),)


def known_row(name: str, prepare: Callable[[World], object], fate: str) -> Row:
    """A row of a frame to port 2, which is known."""
    out = {2: FRAME} if fate == FORWARDED else {}
    return Row(name=name, frame=FRAME, knows=KNOWN, prepare=prepare, fate=fate, out=out)


def _only_others_are_empty(world: World) -> None:
    empty(3, **RATES)(world)
    full(1, **RATES)(world)
    full(2, **RATES)(world)


def _only_other_ways_are_empty(world: World) -> None:
    empty(1, out_bits=SLOW, out_packets=RARE)(world)
    empty(2, in_bits=SLOW, in_packets=RARE)(world)


def _limit_taken_away(world: World) -> None:
    empty(1, in_bits=SLOW)(world)
    limit(world, 1, in_packets=RARE)


@rows(
    *(
        known_row(f"{name}, empty", empty(2 if name in OUT else 1, **{name: rate}), "rate_limited")
        for name, rate in RATES.items()
    ),
    *(
        known_row(f"{name}, full", full(2 if name in OUT else 1, **{name: rate}), FORWARDED)
        for name, rate in RATES.items()
    ),
    known_row("another port's buckets are its own", _only_others_are_empty, FORWARDED),
    known_row("what a port may get is not what it may bring", _only_other_ways_are_empty, FORWARDED),
    known_row("a limit that was taken away leaves its bucket behind", _limit_taken_away, FORWARDED),
    Row(name="a broadcast is charged too", frame=TO_ALL, prepare=empty(1, in_bits=SLOW), fate="rate_limited"),
)
def test_a_rate_lets_frames_through_while_its_bucket_has_enough(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


KINDS = {"broadcast": TO_ALL, "multicast": TO_GROUP, "unknown": UNKNOWN}


@rows(
    *(
        Row(name=f"{name}, empty", frame=frame, prepare=empty(1, **{name: 1}), fate="storm_limited")
        for name, frame in KINDS.items()
    ),
    *(
        Row(
            name=f"{name} alone is limited",
            frame=frame,
            prepare=empty(1, **{other: 1 for other in KINDS if other != name}),
            fate=FLOODED,
            out=flooded(frame),
        )
        for name, frame in KINDS.items()
    ),
    known_row("known unicast is no storm", empty(1, **STORMS), FORWARDED),
    Row(name="the rate comes first", frame=TO_ALL, prepare=empty(1, in_bits=SLOW, broadcast=1), fate="rate_limited"),
)
def test_a_storm_limit_is_for_one_kind_of_frame(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


ARP = ethernet(BROADCAST, mac(1), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1)))


def _answered_but(name: str, rate: int) -> Callable[[World], None]:
    """VM 2 is named for what `ARP` asks, and a bucket of the asker is empty."""

    def prepare(world: World) -> None:
        world.name(2, "10.0.0.2")
        empty(1, **{name: rate})(world)

    return prepare


def _empty_without_a_device(world: World) -> None:
    empty(2, out_bits=SLOW)(world)
    world.set_port(2, ifindex=0)


@rows(
    Row(
        name="6 before 11",
        frame=ethernet(mac(2), mac(8)),
        prepare=empty(1, in_bits=SLOW),
        fate="src_mac_conflict",
    ),
    Row(name="11 before 12", frame=ARP, prepare=_answered_but("broadcast", 1), fate="storm_limited"),
    Row(name="the rate of 15 in 12", frame=ARP, prepare=_answered_but("out_bits", SLOW), fate="rate_limited"),
    Row(name="11 before 14", frame=FRAME, knows=((BLUE, 1),), prepare=empty(1, in_bits=SLOW), fate="rate_limited"),
    Row(
        name="14 before the rate of 15",
        port=3,
        frame=ethernet(mac(4), mac(3)),
        knows=((BLUE, 4),),
        prepare=empty(4, out_bits=SLOW),
        fate="isolated",
    ),
    Row(
        name="the MTU before the rate of 15",
        frame=ethernet(mac(2), mac(1), payload(length=1501)),
        knows=KNOWN,
        prepare=empty(2, out_bits=SLOW),
        fate="mtu_exceeded",
    ),
    Row(
        name="the rate of 15 before no_destination",
        frame=FRAME,
        knows=KNOWN,
        prepare=_empty_without_a_device,
        fate="rate_limited",
    ),
)
def test_rates_have_their_place_in_the_order_of_the_steps(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_the_source_of_a_frame_that_is_dropped_is_not_learned(world: World) -> None:
    empty(1, in_bits=SLOW)(world)
    assert world.run(1, TO_ALL).fate == "rate_limited"
    assert world.entry(BLUE, mac(1)) is None


# --- what is charged ------------------------------------------------------------------------------


def charged(world: World, port: int, name: str, send: Callable[[], object]) -> float:
    """What a limit of 1 a second is charged. Its bucket lacks a little beforehand, so that no clock takes part."""
    limit(world, port, **{name: 1})
    fill(world, port, **{name: 0.5})
    before = buckets(world, port)[name]
    send()
    return (buckets(world, port)[name] - before) / TICKS_PER_S


@pytest.mark.parametrize(
    ("port", "frame", "octets"),
    [
        (1, FRAME, len(FRAME)),
        (6, ethernet(mac(2), mac(6), None, vlan(110)), len(FRAME) + 4),
        (6, ethernet(BROADCAST, mac(6), None, vlan(110), vlan(7)), len(FRAME) + 8),
    ],
    ids=["untagged", "tagged", "two tags"],
)
def test_a_frame_is_charged_as_on_the_wire(world: World, port: int, frame: bytes, octets: int) -> None:
    assert charged(world, port, "in_bits", lambda: world.run(port, frame)) == octets * 8
    assert charged(world, port, "in_packets", lambda: world.run(port, frame)) == 1
    if port == 6:
        assert charged(world, port, "in_bits", lambda: world.run_tagged(port, frame)) == octets * 8


def test_a_copy_is_charged_as_it_leaves(world: World) -> None:
    world.learn(BLUE, mac(9), 9)
    to_uplink = ethernet(mac(9), mac(1))
    world.learn(BLUE, mac(2), 2)
    from_trunk = ethernet(mac(2), mac(6), None, vlan(110))
    assert charged(world, 9, "out_bits", lambda: world.run(1, to_uplink)) == (len(to_uplink) + 4) * 8
    for run in (world.run, world.run_tagged, world.send):
        assert charged(world, 2, "out_bits", lambda run=run: run(6, from_trunk)) == len(FRAME) * 8  # type: ignore[misc]  # mypy cannot type a lambda with a default
        assert charged(world, 9, "out_bits", lambda: world.run(1, TO_ALL)) == (len(TO_ALL) + 4) * 8


def test_an_answer_is_charged_as_it_leaves(world: World) -> None:
    world.name(2, "10.0.0.2")
    tagged = ethernet(BROADCAST, mac(6), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(6)), vlan(110))
    assert charged(world, 1, "out_bits", lambda: world.run(1, ARP)) == len(ARP) * 8
    for run in (world.run, world.run_tagged, world.send):
        assert charged(world, 6, "out_bits", lambda run=run: run(6, tagged)) == len(tagged) * 8  # type: ignore[misc]  # as above
        assert charged(world, 6, "out_packets", lambda run=run: run(6, tagged)) == 1  # type: ignore[misc]  # as above


MSS = 1000
SEGMENTS = 4
BODY = bytes(3 * MSS + 1)
TCP_HEADERS, UDP_HEADERS = 14 + 20 + 20 + 12, 14 + 40 + 8
TCP_PACKET = ipv4(tcp(BODY, options=bytes(12)))
GSO_TCP = VNET_HDR.pack(NEEDS_CSUM, 1, TCP_HEADERS, MSS, 34, 16)  # 1: VIRTIO_NET_HDR_GSO_TCPV4


@pytest.mark.parametrize(
    ("inside", "headers"),
    [(TCP_PACKET, TCP_HEADERS), (ipv6(udp(BODY)), UDP_HEADERS)],
    ids=["TCP over IPv4", "UDP over IPv6"],
)
@pytest.mark.parametrize(("port", "way"), [(1, "in"), (2, "out")])
def test_a_gso_frame_is_charged_for_its_segments(world: World, port: int, way: str, inside: L3, headers: int) -> None:
    """Each of the segments has all headers."""
    frame = ethernet(mac(2), mac(1), inside)
    world.learn(BLUE, mac(2), 2)

    def send() -> None:
        world.run(1, frame, gso_size=MSS)

    assert charged(world, port, f"{way}_bits", send) == (len(BODY) + SEGMENTS * headers) * 8
    assert charged(world, port, f"{way}_packets", send) == SEGMENTS


@pytest.mark.parametrize(("port", "name", "tag"), [(1, "in_bits", 0), (2, "out_bits", 0), (9, "out_bits", 4)])
def test_a_gso_frame_that_floods_is_charged_alike(world: World, port: int, name: str, tag: int) -> None:
    """As a VM hands it over: of such a frame the kernel does not say how many segments it has (gso_segs is 0)."""
    frame = ethernet(BROADCAST, mac(1), TCP_PACKET)

    def send() -> None:
        world.wires.write(1, frame, GSO_TCP)
        for other in EVERYBODY_ELSE:
            world.wires.read(other, SEGMENTS)

    assert charged(world, port, name, send) == (len(BODY) + SEGMENTS * (TCP_HEADERS + tag)) * 8


@pytest.mark.parametrize("name", [*RATES, *STORMS])
def test_what_a_bucket_refuses_it_does_not_charge(world: World, name: str) -> None:
    """Nor does the other one of the same rate."""
    port = 2 if name in OUT else 1
    limits = RATES | STORMS
    world.learn(BLUE, mac(2), 2)
    limit(world, port, **limits)
    fill(world, port, **(dict.fromkeys(limits, 0.1) | {name: 1.5 * burst_s(name, limits[name])}))
    before = buckets(world, port)
    outcome = world.run(1, KINDS.get(name, FRAME))
    assert outcome.fate == ("storm_limited" if name in STORMS else "rate_limited")
    charged = {key for key, full_at in buckets(world, port).items() if full_at != before[key]}
    assert charged == ({"in_bits", "in_packets"} if name in STORMS else set())


# --- how much a bucket holds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "seconds"),
    [
        ("in_bits", 10**9, 0.25),
        ("in_bits", BURST_BITS * 4, 0.25),
        ("in_bits", BURST_BITS, 1.0),
        ("in_bits", SLOW, BURST_BITS / SLOW),
        ("in_packets", 10**6, 0.25),
        ("in_packets", RARE, BURST_PACKETS / RARE),
        ("broadcast", 10**6, 1.0),
        ("broadcast", 1, 1.0),
    ],
)
def test_a_bucket_holds_its_burst(world: World, name: str, rate: int, seconds: float) -> None:
    """From all but one frame's worth more than a whole burst nothing passes; from a frame's worth less it does."""
    frame = TO_ALL if name in STORMS else FRAME
    cost = (len(frame) * 8 if name.endswith("bits") else 1) / rate
    world.learn(BLUE, mac(2), 2)
    limit(world, 1, **{name: rate})
    fill(world, 1, **{name: max(0.0, seconds - cost)})
    assert world.run(1, frame).fate in (FORWARDED, FLOODED)
    fill(world, 1, **{name: 1.9 * seconds})
    assert world.run(1, frame).fate in ("rate_limited", "storm_limited")


def test_a_storm_limit_of_three_lets_three_through_at_once(world: World) -> None:
    limit(world, 1, broadcast=3)
    fates = [world.run(1, TO_ALL).fate for _ in range(4)]
    assert fates[:3] == [FLOODED] * 3


def test_a_debt_of_another_rate_does_not_stop_a_port(world: World) -> None:
    """At 1 kbit/s an empty bucket needs 17 minutes; found at 1 Gbit/s it is just empty."""
    world.learn(BLUE, mac(2), 2)
    limit(world, 1, in_bits=10**9)
    fill(world, 1, in_bits=BURST_BITS / SLOW)
    assert world.run(1, FRAME).fate == "rate_limited"
    assert buckets(world, 1)["in_bits"] <= (time.monotonic_ns() * TICKS_PER_NS) + TICKS_PER_S // 4


# --- floods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate"), [("out_bits", SLOW), ("out_packets", RARE)])
def test_of_a_flood_only_the_limited_member_gets_no_copy(world: World, name: str, rate: int) -> None:
    """The frame is flooded all the same; the copy is counted for the port that did not get it."""
    for port in (2, 6, 10):
        empty(port, **{name: rate})(world)
    full(3, **{name: rate})(world)
    before = world.rig.drops(DropKind.COPY)
    outcome = world.send(1, TO_ALL)
    assert (outcome.fate, outcome.where) == (FLOODED, (1, BLUE))
    assert outcome.frames == {port: [copy] for port, copy in flooded(TO_ALL, 3, 4, 7, 8, 9).items()}
    size = len(TO_ALL)
    assert before == {}
    assert world.rig.drops(DropKind.COPY) == {
        (2, BLUE, "rate_limited"): (1, size),
        (6, BLUE, "rate_limited"): (1, size + 4),
        (10, BLUE, "rate_limited"): (1, size + 4),
    }


def test_a_member_that_gets_no_copy_pays_for_none(world: World) -> None:
    limit(world, 1, out_packets=RARE)
    limit(world, 3, out_packets=RARE)
    limit(world, 4, out_packets=RARE)
    world.run(3, ethernet(BROADCAST, mac(3)))
    assert [buckets(world, port)["out_packets"] > 0 for port in (1, 3, 4)] == [True, False, False]


# --- shared by all CPUs ---------------------------------------------------------------------------

RUNS = 100_000


@pytest.mark.alone  # it takes both CPUs
def test_no_charge_is_lost_between_cpus(world: World) -> None:
    """Two CPUs take out of one bucket at once. All that passed it has been paid for, to the tick."""
    world.set_segment(BLUE, flags=SegmentFlag.DROP_UNKNOWN)  # step 17: nothing is sent
    limit(world, 1, unknown=10**6)
    fill(world, 1, unknown=0.5)
    before = buckets(world, 1)["unknown"]
    _run_on_two_cpus(world, UNKNOWN, RUNS)
    assert world.rig.drops()[1, BLUE, "unknown_unicast"][0] == 2 * RUNS
    assert buckets(world, 1)["unknown"] - before == 2 * RUNS * TICKS_PER_S // 10**6


@pytest.mark.alone  # it takes both CPUs
def test_two_cpus_together_get_one_bucket(world: World) -> None:
    """64 packets, and whatever flows back; each CPU may be let through on what one has room for."""
    world.learn(BLUE, mac(2), 2)
    limit(world, 1, in_packets=RARE)
    begun = time.monotonic()
    _run_on_two_cpus(world, FRAME, 20_000)
    refilled = int((time.monotonic() - begun) * RARE) + 1
    assert BURST_PACKETS <= world.rig.traffic(counter(1, BLUE))["packets"][0] <= BURST_PACKETS + refilled + 1


def _run_on_two_cpus(world: World, frame: bytes, repeat: int) -> None:
    context = skb(ifindex=world.ports[1].ifindex)
    start = threading.Barrier(2)

    def run() -> None:
        with world.wires.inside():
            start.wait()
            world.rig.program("vx_tc").test_run(frame, context, repeat=repeat)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- the agent's side -----------------------------------------------------------------------------


def test_a_port_that_goes_leaves_full_buckets_and_no_limits(place: Place) -> None:
    datapath = place.opened()
    limits = LimitsRow(**{field.name: 7 for field in fields(LimitsRow)})
    datapath.put(PutRow(table=Table.LIMITS, key=3, row=limits))
    place.map("buckets").update(struct.pack("=I", 3), b"\1" * abi.BUCKETS.size)
    datapath.clear_counters(ClearCounters(port=3))
    assert place.map("buckets").lookup(struct.pack("=I", 3)) == bytes(abi.BUCKETS.size)
    assert datapath.rows()[Table.LIMITS, 3] == limits


def test_limits_that_change_begin_with_full_buckets(place: Place) -> None:
    datapath = place.opened()
    for handle in (3, 4):
        place.map("buckets").update(struct.pack("=I", handle), b"\1" * abi.BUCKETS.size)
    datapath.put(PutRow(table=Table.LIMITS, key=3, row=LimitsRow(in_bits=7)))
    levels = [place.map("buckets").lookup(struct.pack("=I", handle)) for handle in (3, 4)]
    assert levels == [bytes(abi.BUCKETS.size), b"\1" * abi.BUCKETS.size]


def test_buckets_keep_their_level_when_programs_are_swapped_or_the_agent_dies(place: Place) -> None:
    datapath = place.opened()
    level = abi.BUCKETS.pack(in_bits=1, unknown=2)
    place.map("buckets").update(struct.pack("=I", 3), level)
    datapath.reload()
    datapath.close()
    place.opened()
    assert place.map("buckets").lookup(struct.pack("=I", 3)) == level

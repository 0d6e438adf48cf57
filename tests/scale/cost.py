"""What a frame pays for each feature, in nanoseconds: `make cost`, a minute; AGAINST=DIR compares with other programs.

Test runs of vx_tc on one frame with hot caches, known unicast but where the table says else. Each figure is the median
of pairs, the feature off and on in turn, so that what else the machine does falls on both. A table; it is no test.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale import layout
from scale.measure import machine
from support.frames import BROADCAST, ethernet, ipv4, ipv6, mac, tcp
from support.groups import Groups
from support.multicast import data
from support.rig import Rig, skb
from support.wires import Wires
from support.world import BLUE, PORTS, World
from vxagent.core.tables import FdbFlag, LimitsRow, PortFlag, SegmentFlag, Table
from vxagent.datapath import source
from vxagent.datapath.bpf_prog import Program
from vxagent.datapath.programs import Generation
from vxagent.lab.signals import Stopped

ROUNDS, REPEAT = 101, 10_000  # 1 to 2 ms a slice: most are over before the scheduler looks
NEIGHBOURS = 500  # addresses and prefixes that others list: lookups in empty tables are too cheap

Prepare = Callable[[World], None]


def off(world: World) -> None:
    """A port that asks for nothing: not inspected, no locks, no limits."""
    world.set_port(1, flags=PortFlag.TRUSTED)
    world.set_port(2, flags=PortFlag(0))
    world.rig.put(Table.LIMITS, 1, LimitsRow())
    world.rig.put(Table.LIMITS, 2, LimitsRow())
    world.set_segment(BLUE, flags=SegmentFlag(0), slots=2)  # a flood reaches port 2, and makes no clone


def _flags(port: int, flags: PortFlag) -> Prepare:
    def prepare(world: World) -> None:
        off(world)
        world.set_port(port, flags=flags)

    return prepare


def _limits(port: int, flags: PortFlag, **limits: int) -> Prepare:
    def prepare(world: World) -> None:
        _flags(port, flags)(world)
        world.rig.put(Table.LIMITS, port, LimitsRow(**limits))

    return prepare


def _segment(flags: SegmentFlag) -> Prepare:
    def prepare(world: World) -> None:
        off(world)
        world.set_segment(BLUE, flags=flags)

    return prepare


def _leased(world: World) -> None:
    _segment(SegmentFlag.LEASES)(world)
    world.set_port(1, flags=PortFlag.SNOOPED)
    world.name(1, "10.0.0.7", leased_for_s=3600)


LOCKS = PortFlag.MAC_LOCKED | PortFlag.IP_LOCKED
PLAIN = ethernet(mac(2), mac(1), ipv4(tcp(), source="10.0.0.1"))
PLAIN_6 = ethernet(mac(2), mac(1), ipv6(tcp(), source="2001:db8::1"))
SECOND = ethernet(mac(2), mac(1), ipv4(tcp(), source="10.0.0.2"))
LEASED = ethernet(mac(2), mac(1), ipv4(tcp(), source="10.0.0.7"))
TO_ALL = ethernet(BROADCAST, mac(1))
TO_GROUP, TO_GROUP_6 = data("239.1.2.3"), data("ff0e::1:2:3")
BY_PREFIX = ethernet(mac(2), mac(1), ipv4(tcp(), source="10.1.2.3"))

FEATURES: dict[str, tuple[bytes, Prepare]] = {
    "nothing (A/A)": (PLAIN, off),
    "the guard against DHCP servers and RAs": (PLAIN, _flags(1, PortFlag(0))),
    "the same, IPv6": (PLAIN_6, _flags(1, PortFlag(0))),
    "--mac": (PLAIN, _flags(1, PortFlag.MAC_LOCKED)),
    "--mac and --ip, IPv4": (PLAIN, _flags(1, LOCKS)),
    "--mac and --ip, IPv4, not the first": (SECOND, _flags(1, LOCKS)),
    "--mac and --ip, IPv6": (PLAIN_6, _flags(1, LOCKS)),
    "--mac and --ip of a prefix": (BY_PREFIX, _flags(1, LOCKS | PortFlag.PREFIXES)),
    "--mac and --ip, in shadow": (PLAIN, _flags(1, LOCKS | PortFlag.SHADOW)),
    "--rate-in in bit/s": (PLAIN, _limits(1, PortFlag.TRUSTED | PortFlag.LIMITED_IN, in_bits=10**12)),
    "--rate-in in bit/s and packets/s": (
        PLAIN,
        _limits(1, PortFlag.TRUSTED | PortFlag.LIMITED_IN, in_bits=10**12, in_packets=10**9),
    ),
    "--rate-out in bit/s, at the receiver": (PLAIN, _limits(2, PortFlag.LIMITED_OUT, out_bits=10**12)),
    "storm limits": (PLAIN, _limits(1, PortFlag.TRUSTED | PortFlag.LIMITED_IN, broadcast=10**9, unknown=10**9)),
    "answers to ARP and ND, in the segment": (PLAIN, _segment(SegmentFlag.NEIGHBOURS)),
    "leases, in the segment": (PLAIN, _segment(SegmentFlag.LEASES)),
    "--dhcp-snoop, a leased address": (LEASED, _leased),
    "multicast snooping, in the segment": (PLAIN, _segment(SegmentFlag.GROUPS)),
    "the same, a broadcast": (TO_ALL, _segment(SegmentFlag.GROUPS)),
    "the same, a group with a member, IPv4": (TO_GROUP, _segment(SegmentFlag.GROUPS)),
    "the same, a group with a member, IPv6": (TO_GROUP_6, _segment(SegmentFlag.GROUPS)),
}


WITHOUT_A_FLOW: dict[str, tuple[bytes, Prepare]] = {
    "everything off": (PLAIN, off),
    "a port as it is by default": (PLAIN, _flags(1, PortFlag(0))),
    "a rate": FEATURES["--rate-in in bit/s"],
    "a broadcast to one": (TO_ALL, off),
    "a group with a member": (TO_GROUP, _segment(SegmentFlag.GROUPS)),
}


def pairs(
    world: World, frame: bytes, before: tuple[Program, Prepare], after: tuple[Program, Prepare]
) -> tuple[float, float]:
    """Median ns of a frame before, and median of what it takes more after."""
    spent: tuple[list[int], list[int]] = ([], [])
    context = skb(ifindex=world.ports[1].ifindex)
    for number in range(ROUNDS + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            program, prepare = (before, after)[which]
            prepare(world)
            spent[which].append(program.test_run(frame, context, REPEAT).duration_ns)
    return statistics.median(spent[0]), statistics.median(b - a for a, b in zip(*spent, strict=True))


@contextmanager
def measured(directory: Path) -> Iterator[tuple[World, Rig]]:
    """The switch of the tests, with known stations and neighbours that list addresses."""
    rig = Rig(directory)
    wires = Wires(PORTS, *map(rig.program, ("vx_tc", "vx_xdp")))
    try:
        world = World(rig, wires, rig.program("vx_tc"))
        for number in (1, 2):
            world.state_static(BLUE, mac(number), number, FdbFlag.LISTED)
        world.list_ips(1, "10.0.0.1", "10.0.0.2", "10.1.0.0/16", "2001:db8::1", "2001:db8:1::/48")
        for number in range(NEIGHBOURS):
            world.list_ips(2, f"10.2.{number >> 8}.{number & 255}", f"10.{3 + (number >> 8)}.{number & 255}.0/24")
        groups = Groups(world)
        for group in ("239.1.2.3", "ff0e::1:2:3"):
            groups.join(2, group)
        with wires.inside():
            yield world, rig
    finally:
        wires.close()
        rig.close()


def against(world: World, rig: Rig, directory: Path, cache: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """This tree's programs beside those of another `bpf/`, whose maps must be laid out as this tree's."""
    other = dataclasses.replace(source.switch(), main=directory / "vxagent.c", directory=directory)
    theirs = Generation.load(source.load(cache, other).programs, rig.maps)
    old, new = theirs.programs["vx_tc"], rig.program("vx_tc")
    try:
        yield "A/A", pairs(world, PLAIN, (old, off), (old, off))
        yield "everything off", pairs(world, PLAIN, (old, off), (new, off))
        yield "a port as it is by default", pairs(world, PLAIN, (old, off), (new, _flags(1, PortFlag(0))))
        old, new = theirs.programs["vx_walk"], rig.program("vx_walk")
        for what, (frame, prepare) in WITHOUT_A_FLOW.items():
            yield f"without a flow: {what}", pairs(world, frame, (old, prepare), (new, prepare))
    finally:
        theirs.close()


def main(other: str) -> None:
    """Print the table."""
    print(machine())
    with tempfile.TemporaryDirectory() as name, measured(Path(name)) as (world, rig):
        if other:
            print(f"more than the programs of {other}")
            for what, (base, more) in against(world, rig, Path(other).absolute(), Path(name)):
                print(f"{what:<48} {more:+6.1f} ns of {base:.0f}", flush=True)
        print("more than without the feature")
        for what, (frame, prepare) in FEATURES.items():
            program = rig.program("vx_tc")
            base, more = pairs(world, frame, (program, off), (program, prepare))
            print(f"{what:<48} {more:+6.1f} ns of {base:.0f}", flush=True)
        for line in layout.measured(Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    try:
        main(os.environ.get("AGAINST", ""))
    except Stopped as exc:
        sys.exit(128 + exc.number)

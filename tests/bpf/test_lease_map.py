"""Leases in the kernel: read, ended and swept by the agent, counted anew."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from support.frames import mac
from support.world import BLUE, RED, World, number
from vxagent.core.effects import PutLease
from vxagent.core.tables import PortFlag
from vxagent.datapath.base import Lease
from vxagent.datapath.lease_map import LeaseMap

ADDRESS, OTHER, ADDRESS_6 = "10.0.0.50", "10.0.0.51", "2001:db8::50"


@pytest.fixture
def leases(world: World) -> LeaseMap:
    """Ports 1 and 6, a trunk, are held to their leases; port 3 lists an address."""
    world.snoop(1, 6)
    world.name(3, "10.0.0.3")
    return LeaseMap(world.rig.maps)


def held(leases: LeaseMap) -> dict[tuple[int, int], list[str]]:
    """(port, segment) → addresses."""
    found: dict[tuple[int, int], list[str]] = {}
    for lease in leases.entries():
        found.setdefault((lease.port, lease.segment), []).append(str(lease.address))
    return {place: sorted(addresses) for place, addresses in found.items()}


def test_reads_what_counts(world: World, leases: LeaseMap) -> None:
    world.name(1, ADDRESS, ADDRESS_6, leased_for_s=600)
    world.name(1, OTHER, leased_for_s=-1)
    by_address = {str(lease.address): lease for lease in leases.entries()}
    assert by_address.keys() == {ADDRESS, ADDRESS_6}
    lease = by_address[ADDRESS_6]
    assert isinstance(lease, Lease)
    assert (lease.port, lease.segment, lease.mac) == (1, BLUE, number(mac(1)))
    assert lease.left_s is not None
    assert 500 < lease.left_s <= 600


def test_ends_those_of_a_port(world: World, leases: LeaseMap) -> None:
    world.name(1, ADDRESS, leased_for_s=600)
    world.name(6, OTHER, leased_for_s=600)
    world.name(6, OTHER, segment=RED, leased_for_s=600)
    leases.end(6, RED)
    assert held(leases) == {(1, BLUE): [ADDRESS], (6, BLUE): [OTHER]}
    leases.end(1)
    assert held(leases) == {(6, BLUE): [OTHER]}
    leases.end(3)
    assert world.neighbour(BLUE, "10.0.0.3") is not None


def test_puts_back_where_nothing_is(world: World, leases: LeaseMap) -> None:
    for address, left_s in ((ADDRESS, 600), (ADDRESS_6, None), ("10.0.0.3", 600), (ADDRESS, 60)):
        leases.put(PutLease(segment=BLUE, port=1, address=ip_address(address), mac=number(mac(1)), left_s=left_s))
    lasts = {str(lease.address): lease.left_s for lease in leases.entries()}
    assert lasts.keys() == {ADDRESS, ADDRESS_6}
    assert lasts[ADDRESS_6] is None
    assert (lasts[ADDRESS] or 0) > 500
    assert world.leases(1) == 2


def test_sweeps_what_counts_no_more(world: World, leases: LeaseMap) -> None:
    """What ran out, what a port has that is not held to its leases, and where it is not."""
    world.name(1, ADDRESS, leased_for_s=600)
    world.name(1, OTHER, leased_for_s=-1)
    world.name(2, "10.0.0.52", leased_for_s=600)
    world.name(1, ADDRESS, segment=RED, leased_for_s=600)
    world.name(6, ADDRESS_6, segment=RED, leased_for_s=600)
    world.name(200, "10.0.0.53", leased_for_s=600)
    leases.sweep()
    assert held(leases) == {(1, BLUE): [ADDRESS], (6, RED): [ADDRESS_6]}
    assert world.neighbours() == 3


def test_counts_anew(world: World, leases: LeaseMap) -> None:
    world.name(1, ADDRESS, ADDRESS_6, leased_for_s=600)
    world.name(1, OTHER, leased_for_s=-1)
    for port, count in ((1, 64), (6, 5), (3, -1)):
        world.rig.maps["leases"].update(struct.pack("=I", port), struct.pack("=q", count))
    leases.sweep()
    assert (world.leases(1), world.leases(6), world.leases(3)) == (2, 0, 0)
    world.set_port(1, flags=PortFlag(0))
    leases.sweep()
    assert world.leases(1) == 0

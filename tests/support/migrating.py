"""VM 7 moves from hv1 to hv2, hv3 looks on; VM 8 is on hv1, VM 9 on hv3.

hv1/tap0: vm7     hv1/tap1: vm8     hv2/tap2: vm7, when it has come     hv3/tap0: vm9
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

from support.members import BLUE, IP7, IP8, MAC7, MAC8, MAC9, QUICK, Hosts, Member, frame, hosts_with, until
from vxagent.core.tables import FdbFlag, FdbRow, SegmentFlag, SegmentRow, Table, fdb_key
from vxagent.datapath.base import Lease
from vxagent.model.binding import Phase
from vxagent.model.ids import mac_to_int
from vxagent.model.port import PortState
from vxagent.model.segment import Segment
from vxagent.runtime.membership import Connection
from vxagent.runtime.periods import Waits

VTEP1, VTEP2 = "vtep/192.0.2.1", "vtep/192.0.2.2"
SHORT = replace(QUICK, switchover_s=0.05)
UP, STANDBY, HOLDING, DRAINING = PortState.UP, PortState.STANDBY, PortState.HOLDING, PortState.DRAINING


LEASED = "10.0.0.77"


async def lease_to_vm7(host: Member) -> None:
    """vm7, there, speaks from what a DHCP server has leased to it, for ten more minutes."""
    await host.change(lambda draft: draft.set_port("vm7", dhcp_snoop=True))
    port, segment = host.state.handle_of_port("vm7"), host.state.handle_of_segment("blue")
    lease = Lease(segment=segment, port=port, address=ip_address(LEASED), mac=mac_to_int(MAC7), left_s=600)
    host.datapath.lease(lease)


@asynccontextmanager
async def three(*segments: Segment, waits: Waits = QUICK) -> AsyncIterator[Hosts]:
    """The hosts above, in segment blue or as given."""
    segments = segments or (BLUE,)
    name = segments[0].name
    async with hosts_with(3, *segments, waits=waits) as hosts:
        a, _, c = hosts.all
        await a.attach("vm7", "tap0", segment=name, macs=(MAC7,), ips=(IP7,))
        await a.attach("vm8", "tap1", segment=name, macs=(MAC8,), ips=(IP8,))
        await c.attach("vm9", "tap0", segment=name, macs=(MAC9,))
        await hosts.know("vm7", "vm8", "vm9")
        yield hosts


async def bring(hosts: Hosts, phase: Phase) -> None:
    """vm7 is so far on its way, and all have heard of it; at `switched` hv2 has not."""
    a, b, _ = hosts.all
    if phase is Phase.BOUND:
        return
    await b.migrations.prepare("vm7", "tap2")
    await heard(hosts, Phase.PREPARED)
    await hosts.packed("vm7")
    if phase is Phase.SWITCHED:
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
    if phase is not Phase.PREPARED:
        await a.migrations.switchover("vm7")
        await heard(hosts, phase)
    if phase is Phase.HELD:
        await until(lambda: hosts.keys("ack") >= {"vm7/hv1", "vm7/hv3"})


async def heard(hosts: Hosts, phase: Phase, *, owner: str = "hv1") -> None:
    """All that the engine answers have heard of it."""
    listening = [host for host in hosts.all if not host.away]
    await until(lambda: all(knows(host) == (owner, phase) for host in listening))


def knows(host: Member) -> tuple[str, Phase] | None:
    told = host.state.remote.ports.get("vm7")
    return None if told is None else (told.owner, told.phase)


def states(hosts: Hosts) -> list[PortState | None]:
    """Of vm7 on each host."""
    return [host.port_state("vm7") for host in hosts.all]


def way(host: Member, segment: str = "blue") -> tuple[str | None, bool, bool]:
    """By whom a host sends vm7's frames, whether all of them, and whether it redirects what comes in tunnels."""
    rows = host.datapath.rows()
    at = host.state.handle_of_segment(segment)
    row, of = rows[Table.FDB, fdb_key(at, mac_to_int(MAC7))], rows[Table.SEGMENTS, at]
    assert isinstance(row, FdbRow)
    assert isinstance(of, SegmentRow)
    return host.state.names("port").get(row.via), FdbFlag.REDIRECT in row.flags, SegmentFlag.MOVING in of.flags


def reaches(hosts: Hosts) -> set[str]:
    """Where frames for vm7 come out, whoever sends them; they all come out at one place."""
    a, _, c = hosts.all
    near, far = hosts.send(a, "tap1", frame(MAC8, MAC7)), hosts.send(c, "tap0", frame(MAC9, MAC7))
    assert near == far
    return near


def heard_at(hosts: Hosts) -> set[str]:
    """Where vm7 gets what others send to everybody; at one place, whoever sends it."""
    a, _, c = hosts.all
    places = {"hv1/tap0", "hv2/tap2"}
    near, far = hosts.send(a, "tap1", frame(MAC8)) & places, hosts.send(c, "tap0", frame(MAC9)) & places
    assert near == far
    return near


def owner(hosts: Hosts) -> str:
    binding = hosts.binding("vm7")
    assert binding is not None
    return binding.owner


def phase(hosts: Hosts) -> Phase:
    binding = hosts.binding("vm7")
    assert binding is not None
    return binding.phase

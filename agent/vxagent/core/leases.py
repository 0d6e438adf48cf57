"""Leases over a time without the kernel's tables: what is kept of them, and what is put back.

The data plane has them, and knows best. What the agent last saw is saved for when the machine, or the switch, starts
anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from vxagent.core.effects import PutLease
from vxagent.core.state import State
from vxagent.model.ids import mac_to_int
from vxagent.model.lease import Lease

_SLACK_S = 2  # two readings of one lease differ by rounding; it is not saved anew for that


def is_same(old: Sequence[Lease], new: Sequence[Lease]) -> bool:
    """Whether these are the same leases, with the same ends. Both in the same order."""
    return len(old) == len(new) and all(map(_is_same, old, new))


def restored(state: State, now: float) -> Iterator[PutLease]:
    """The kept leases that go on, of ports that are still held to them and where they were; `now` in Unix time."""
    for port_id, leases in state.leases.items():
        yield from leases_to_put(state, port_id, leases, now)


def leases_to_put(state: State, port: str, leases: Iterable[Lease], now: float) -> Iterator[PutLease]:
    """Those that go on, of a port that is in their segments; `now` in Unix time."""
    segments = {segment for segment, _ in state.ports[port].memberships}
    for lease in leases:
        if lease.segment in segments and (lease.expires is None or lease.expires > now):
            yield PutLease(
                segment=state.handle_of_segment(lease.segment),
                port=state.handle_of_port(port),
                address=ip_address(lease.ip),
                mac=mac_to_int(lease.mac),
                left_s=None if lease.expires is None else lease.expires - now,
            )


def _is_same(one: Lease, other: Lease) -> bool:
    if (one.segment, one.ip, one.mac) != (other.segment, other.ip, other.mac):
        return False
    if one.expires is None or other.expires is None:
        return one.expires is other.expires
    return abs(one.expires - other.expires) <= _SLACK_S

"""The kernel's leases by name and in Unix time, as the switch keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from vxagent.core.state import State
from vxagent.datapath import base
from vxagent.model.ids import int_to_mac
from vxagent.model.lease import Lease


def by_port(state: State, leases: Iterable[base.Lease], now: float) -> dict[str, tuple[Lease, ...]]:
    """Port id → its leases, in an order that stays; `now` in Unix time."""
    ports, segments = state.names("port"), state.names("segment")
    found: dict[str, list[Lease]] = {}
    for lease in leases:
        if lease.port in ports and lease.segment in segments:
            found.setdefault(ports[lease.port], []).append(
                Lease(
                    segment=segments[lease.segment],
                    ip=str(lease.address),
                    mac=int_to_mac(lease.mac),
                    expires=None if lease.left_s is None else round(now + lease.left_s),
                )
            )
    return {
        port: tuple(sorted(several, key=lambda lease: (lease.segment, lease.ip))) for port, several in found.items()
    }

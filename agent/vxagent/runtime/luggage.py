"""What goes along with a port whose VM migrates, as its host leaves it in the cluster for the next one."""

from __future__ import annotations

import msgspec

from vxagent.errors import Conflict, Invalid, NotFound
from vxagent.model.port import Mode, Port
from vxagent.protocol.requests import PortAttach
from vxagent.runtime.carried import CarriedLease, Counts
from vxagent.store.cluster import Cluster


class Luggage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the next host needs of a port.

    Attributes:
        host: that has left it.
        port: as it was asked for.
        leases: what DHCP servers have leased to its VM; as of the switchover or, before it, of the preparation.
        counts: its counters, likewise.
        left_s: for how long what came for its VM had been sent after it, when the engine knew of the switchover; None:
            nobody has switched it over.
    """

    host: str
    port: PortAttach
    leases: tuple[CarriedLease, ...] = ()
    counts: Counts = Counts()
    left_s: float | None = None


_decode = msgspec.json.Decoder(Luggage).decode


def pack(
    host: str,
    port: Port,
    leases: tuple[CarriedLease, ...] = (),
    counts: Counts = Counts(),  # noqa: B008  # frozen
    left_s: float | None = None,
) -> bytes:
    """As the cluster holds it, left by this host."""
    return msgspec.json.encode(
        Luggage(host=host, port=PortAttach.of(port), leases=leases, counts=counts, left_s=left_s)
    )


def unpack(port: str, packed: bytes) -> Luggage:
    """What is in it. Raises Conflict: it cannot be read."""
    try:
        return _decode(packed)
    except msgspec.MsgspecError as error:
        raise Conflict(
            f"what the cluster carries of port {port} cannot be read ({error})", "use one version on both hosts"
        ) from error


async def luggage_of(cluster: Cluster, port: str) -> Luggage:
    """What the owner of a port has left for the next host. Raises NotFound, Conflict, ClusterError."""
    carried = await cluster.carried(port)
    if carried is None:
        raise NotFound("binding", port)
    return unpack(port, carried)


def wanted(luggage: Luggage) -> Port:
    """The port as the next host is to have it.

    Raises:
        Conflict: it is one that does not migrate.
    """
    try:
        port = luggage.port.model()
    except Invalid as error:
        raise Conflict(
            f"the cluster carries a port that cannot be: {error}", "use one version on both hosts"
        ) from error
    if port.mode is Mode.INTERNAL:
        raise Conflict(f"port {port.id} is internal", "an internal port is its host's own and stays")
    if not port.macs:
        mend = f"`vxagent port set {port.id} --mac …` on its host, so that all know it"
        raise Conflict(f"port {port.id} lists no MAC", mend)
    return port

"""Prometheus metrics: desired state and the kernel's counters, read at the scrape.

Cardinality is bounded by ports × segments of a port × drop reasons; nothing is labelled with a MAC. Counters
of a port start again when it is plugged in anew, which Prometheus takes for the reset that it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE

from vxagent.core.audit import KINDS
from vxagent.core.state import State
from vxagent.core.tables import Table
from vxagent.datapath.abi import DropKind, reason_label
from vxagent.datapath.base import Datapath, Drop, Learning, Traffic
from vxagent.datapath.maps import Sizes
from vxagent.errors import VxagentError
from vxagent.model.port import PortState
from vxagent.runtime.audit import Auditor
from vxagent.runtime.cluster_metrics import ClusterCollector
from vxagent.runtime.families import Samples, counter, gauge
from vxagent.runtime.loop import Agent
from vxagent.runtime.multicast import read_multicast, snooped
from vxagent.runtime.named import NOBODY, Named, by_handle, named
from vxagent.runtime.views import VERDICTS, VERSION

PLACE = ("port", "segment", "tenant", "vtep")


@dataclass(frozen=True, slots=True)
class Place:
    """One port, uplink or VTEP in one segment (None: frames that belong to none), and what it counted there."""

    who: Named
    segment: str | None
    tenant: str
    traffic: Traffic
    dropped_packets: int
    dropped_bytes: int

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """Values of PLACE."""
        return _labels(self.who, self.segment or "", self.tenant)


def create_metrics_app(agent: Agent) -> Starlette:
    """What is served at `metrics_listen`: GET /metrics, nothing else."""
    return Starlette(routes=[metrics_route(agent)])


def metrics_route(agent: Agent) -> Route:
    """GET /metrics of an agent."""
    registry = create_registry(lambda: agent.switch.state, agent.datapath, agent.egress_failed)
    registry.register(_DriftCollector(agent.auditor))
    registry.register(ClusterCollector(agent))

    async def serve(_: Request) -> Response:
        try:
            text = await agent.read(partial(generate_latest, registry))
        except VxagentError as exc:
            return PlainTextResponse(f"{exc}\n", HTTP_503_SERVICE_UNAVAILABLE)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    return Route("/metrics", serve, methods=["GET"])


def create_registry(
    state: Callable[[], State], datapath: Datapath, egress_failed: Callable[[], dict[str, int]]
) -> CollectorRegistry:
    """The metrics of a switch and of this process. Collecting them blocks.

    Args:
        state: gives the snapshot of the switch.
        datapath: where the counters are.
        egress_failed: port id → frames that its device took and lost.
    """
    registry = CollectorRegistry()
    registry.register(_SwitchCollector(state, datapath, egress_failed))
    ProcessCollector(namespace="vxagent", registry=registry)
    return registry


class _SwitchCollector(Collector):
    def __init__(
        self, state: Callable[[], State], datapath: Datapath, egress_failed: Callable[[], dict[str, int]]
    ) -> None:
        self._state = state
        self._datapath = datapath
        self._egress_failed = egress_failed

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the kernel."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, from one snapshot."""
        state = self._state()
        drops = self._datapath.drops()
        places = _places(state, self._datapath, drops)
        yield gauge("vxagent_build_info", "Version of the agent.", ("version",), [((VERSION,), 1)])
        yield from _sizes(state, self._datapath, drops)
        yield from _port_states(state)
        yield from _traffic(places)
        yield from _drops(state, drops)
        ids = list(state.ports)
        learning = self._datapath.learning([state.handle_of_port(port_id) for port_id in ids])
        yield from _learning(ids, learning)
        names = (*ids, *state.between)
        handles = [state.numbers.number("port", name) for name in names]
        yield _events(names, self._datapath.suppressed_events(handles))
        yield from _leases(state, self._datapath)
        yield from _multicast(state, self._datapath)
        yield counter(
            "vxagent_port_egress_failed_packets",
            "Frames for the VM that its device took and lost.",
            ("port",),
            [((port_id,), lost) for port_id, lost in self._egress_failed().items()],
        )


class _DriftCollector(Collector):
    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read anything."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """What the audit has found."""
        for name, does, counted in (
            ("vxagent_drift", "Times that something was not as it should be.", self._auditor.found),
            ("vxagent_repairs", "Times that something that had drifted was put right.", self._auditor.repaired),
            ("vxagent_repairs_postponed", "Times that a repair had to wait.", self._auditor.postponed),
        ):
            yield counter(name, does, ("object",), [((str(kind),), counted[kind]) for kind in KINDS])
        yield gauge(
            "vxagent_foreign_programs",
            "Programs of others on the switch's devices.",
            ("hook",),
            [((hook,), count) for hook, count in self._auditor.strangers.by_hook().items()],
        )


def _places(state: State, datapath: Datapath, drops: Sequence[Drop]) -> list[Place]:
    dropped: Counter[tuple[int, int]] = Counter()
    dropped_bytes: Counter[tuple[int, int]] = Counter()
    for drop in drops:
        if drop.kind != DropKind.FRAME:
            continue
        dropped[drop.port, drop.segment] += drop.packets
        dropped_bytes[drop.port, drop.segment] += drop.bytes
    wanted = [
        (name, segment, index)
        for name in (*state.ports, *state.between)
        for segment, index in state.counters_of(name).items()
    ]
    traffic = datapath.traffic([index for _, _, index in wanted])
    found = []
    for (name, segment, _), counted in zip(wanted, traffic, strict=True):
        at = (state.numbers.number("port", name), state.numbers.number("segment", segment) if segment else 0)
        if segment is None and not dropped[at] and not any(counted.packets):
            continue  # frames of no segment are rare, and most ports never see one
        tenant = state.segments[segment].tenant if segment else ""
        found.append(Place(named(name), segment, tenant, counted, dropped[at], dropped_bytes[at]))
    return found


def _traffic(places: Sequence[Place]) -> Iterator[Metric]:
    def by_place(name: str, does: str, value: Callable[[Place], int]) -> Metric:
        return counter(name, does, PLACE, [(place.labels, value(place)) for place in places])

    yield by_place(
        "vxagent_port_receive_packets",
        "Frames that came in from the VM or the physical network, dropped ones too.",
        lambda p: sum(p.traffic.packets) + p.dropped_packets,
    )
    yield by_place(
        "vxagent_port_receive_bytes",
        "Bytes of frames that came in, dropped ones too.",
        lambda p: sum(p.traffic.bytes) + p.dropped_bytes,
    )
    yield by_place(
        "vxagent_port_transmit_packets", "Frames handed to the port's device.", lambda p: p.traffic.tx_packets
    )
    yield by_place(
        "vxagent_port_transmit_bytes", "Bytes of frames handed to the port's device.", lambda p: p.traffic.tx_bytes
    )
    yield by_place(
        "vxagent_port_copies",
        "Copies made of the frames that came in: 1 a forward, n a flood.",
        lambda p: p.traffic.copies,
    )
    yield counter(
        "vxagent_port_verdict_packets",
        "Frames that came in, by what the data plane decided; drops stand in vxagent_drop_packets_total.",
        (*PLACE, "verdict"),
        [
            ((*place.labels, verdict), place.traffic.packets[number])
            for place in places
            for number, verdict in enumerate(VERDICTS)
        ],
    )


def _drops(state: State, drops: Sequence[Drop]) -> Iterator[Metric]:
    places, segments = by_handle(state), state.names("segment")
    found: dict[DropKind, list[tuple[tuple[str, ...], Drop]]] = {kind: [] for kind in DropKind}
    for drop in drops:
        segment = segments.get(drop.segment, "")
        tenant = state.segments[segment].tenant if segment else ""
        at = (*_labels(places.get(drop.port, NOBODY), segment, tenant), reason_label(drop.reason))
        found[drop.kind].append((at, drop))
    for kind, name, what in (
        (DropKind.FRAME, "vxagent_drop", "frames dropped"),
        (DropKind.COPY, "vxagent_copy_drop", "copies of floods that the port did not get"),
        (
            DropKind.SHADOW,
            "vxagent_shadow_drop",
            "frames that would have been dropped, were the port's guards in force",
        ),
    ):
        labels = (*PLACE, "reason")
        packets, octets = f"Number of {what}, by reason.", f"Bytes of {what}, by reason."
        yield counter(f"{name}_packets", packets, labels, [(at, drop.packets) for at, drop in found[kind]])
        yield counter(f"{name}_bytes", octets, labels, [(at, drop.bytes) for at, drop in found[kind]])


def _learning(ids: Sequence[str], learning: Sequence[Learning]) -> Iterator[Metric]:
    pairs = list(zip(ids, learning, strict=True))
    port = ("port",)
    yield gauge(
        "vxagent_port_learned_macs", "MACs that the port has learned.", port, [((i,), has.entries) for i, has in pairs]
    )
    yield counter(
        "vxagent_port_learn_limited_packets",
        "Frames whose source was not learned because the port's quota or rate of learning was used up.",
        port,
        [((i,), has.limited) for i, has in pairs],
    )
    yield counter(
        "vxagent_port_moved_macs", "MACs that came from another port.", port, [((i,), has.moved) for i, has in pairs]
    )
    yield counter(
        "vxagent_port_held_macs",
        "MACs that the port contended for, until they were held where they had been.",
        port,
        [((i,), has.held) for i, has in pairs],
    )


def _events(names: Sequence[str], suppressed: Sequence[int]) -> Metric:
    return counter(
        "vxagent_port_events_suppressed",
        "Events of the port or uplink that the log was not told, because there were too many.",
        ("port", "vtep"),
        [((who.port or "", who.vtep or ""), count) for who, count in zip(map(named, names), suppressed, strict=True)],
    )


def _leases(state: State, datapath: Datapath) -> Iterator[Metric]:
    ids = [port.id for port in state.ports.values() if port.dhcp_snoop]
    handles = [state.handle_of_port(port_id) for port_id in ids]
    held = Counter(lease.port for lease in datapath.leases()) if ids else Counter[int]()
    yield gauge(
        "vxagent_port_leases",
        "Addresses that DHCP servers have leased to a port that is held to them.",
        ("port",),
        [((i,), held[handle]) for i, handle in zip(ids, handles, strict=True)],
    )
    yield counter(
        "vxagent_port_leases_refused",
        "Leases that there was no room for.",
        ("port",),
        [((i,), refused) for i, refused in zip(ids, datapath.refused_leases(handles), strict=True)],
    )


def _multicast(state: State, datapath: Datapath) -> Iterator[Metric]:
    names = {state.handle_of_segment(name): name for name in snooped(state)}
    places = by_handle(state)
    known = read_multicast(state, datapath, names.values())
    groups = Counter(group.segment for group in known.groups)

    def samples(values: Iterable[tuple[int, int]]) -> Samples:
        return [((names[at], state.segments[names[at]].tenant), value) for at, value in values]

    yield gauge(
        "vxagent_segment_multicast_groups",
        "Memberships in multicast groups, one for each port and group.",
        ("segment", "tenant"),
        samples((at, groups[at]) for at in names),
    )
    yield gauge(
        "vxagent_segment_multicast_queriers",
        "Families, of IPv4 and IPv6, of which a querier is alive; multicast of the others goes everywhere.",
        ("segment", "tenant"),
        samples((at, sum(map(bool, known.queriers.get(at, ())))) for at in names),
    )
    yield counter(
        "vxagent_port_multicast_joins_refused",
        "Joins for which there was no room, so that the port gets every group for a while.",
        PLACE,
        [
            (_labels(places[port], names[at], state.segments[names[at]].tenant), refused)
            for (at, port), refused in known.refused.items()
        ],
    )


def _port_states(state: State) -> Iterator[Metric]:
    states = {name: state.port_state(name)[0] for name in state.ports}
    states |= {name: state.uplink_state(name)[0] for name in state.uplinks}
    yield gauge(
        "vxagent_port_up",
        "1 where the port or uplink forwards.",
        ("port",),
        [((name,), int(is_ is PortState.UP)) for name, is_ in states.items()],
    )
    if state.overlay is not None:
        yield gauge(
            "vxagent_overlay_up",
            "1 where the underlay device is there and up.",
            ("vtep",),
            [((state.overlay.vtep,), int(state.overlay_state()[0] is PortState.UP))],
        )
    yield gauge("vxagent_vteps", "VTEPs of other hosts that tunnels go to.", (), [((), len(state.tunnels))])
    yield gauge("vxagent_ports", "Ports on this host.", (), [((), len(state.ports))])
    yield gauge("vxagent_segments", "Segments on this host.", (), [((), len(state.segments))])


def _sizes(state: State, datapath: Datapath, drops: Sequence[Drop]) -> Iterator[Metric]:
    fdb = datapath.fdb_count()
    yield gauge("vxagent_fdb_entries", "Entries of the FDB, learned and static.", (), [((), fdb)])
    rows = Counter(table for table, _ in state.rows)
    counters = sum(space == "counter" for space, _ in state.numbers.given)
    sizes = Sizes()
    maps = {
        "ports": (rows[Table.PORTS], sizes.ports),
        "segments": (rows[Table.SEGMENTS], sizes.segments),
        "devices": (rows[Table.DEVICES], sizes.ports),
        "vids": (rows[Table.VIDS], sizes.memberships),
        "members": (rows[Table.MEMBERS], sizes.memberships),
        "slots": (rows[Table.SLOTS], sizes.memberships),
        "fdb": (fdb, datapath.fdb_room()),
        "tunnels": (rows[Table.TUNNELS], sizes.ports),
        "vnis": (rows[Table.VNIS], sizes.segments),
        "addresses": (rows[Table.ADDRESSES], sizes.addresses),
        "prefixes": (rows[Table.PREFIXES], sizes.addresses),
        "traffic": (counters, sizes.counters),
        "drops": (len(drops), sizes.drops),
    }
    label = ("map",)
    yield gauge("vxagent_map_entries", "Entries in use.", label, [((m,), used) for m, (used, _) in maps.items()])
    yield gauge("vxagent_map_size", "Entries that there is room for.", label, [((m,), n) for m, (_, n) in maps.items()])


def _labels(who: Named, segment: str, tenant: str) -> tuple[str, str, str, str]:
    """Values of PLACE."""
    return who.port or "", segment, tenant, who.vtep or ""

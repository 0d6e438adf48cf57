"""The keys that a cluster has in the engine, and what is in them.

    R = /vxagent/v1/<cluster>/
    R schema                {version, id}   which layout this is, and a name for this very store
    R live/<host>           {vtep, boot}    goes when the host falls silent; its create revision names the session
    R host/<host>           {vtep}          stays
    R vtep/<address>        <host>          each address is one host's
    R segment/<segment>     {name, tenant, vlan, vni, mtu}
    R vni/<vni>             <segment>       each number is one segment's
    R vlan/<vid>            <segment>
    R has/<segment>/<host>  {}              this host wants what is flooded there
    R bridge/<segment>      {host}          it bridges VLAN and VNI
    R port/<id>             {seg, mac, ip, owner, next, phase, epoch, op}: the authority
    R fdb/<segment>/<id>    {o, n, p, e, m, i}: written with it, what this segment's hosts are told of it
    R mac/<segment>/<mac>   <id>            each is one port's
    R ip/<segment>/<address>  <id>
    R ack/<id>/<host>       <revision>      this host acts on what was written then
    R carry/<id>            what the next host needs of a port, as its owner wrote it

Values are JSON; fields that we do not know are ignored. Names hold no slash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from vxagent.errors import ClusterRefused, Invalid
from vxagent.model.binding import Binding, Phase, Projection
from vxagent.model.cluster import Bridge, ClusterHost, ClusterSegment, Live, Presence, Problem, Record
from vxagent.store.kv import KeyValue, Range, prefix

VERSION = 1

T = TypeVar("T")


class SchemaValue(msgspec.Struct, frozen=True):
    """Of `schema`. id: another one for each store that began empty."""

    version: int
    id: str = ""


class _Host(msgspec.Struct, frozen=True):
    vtep: str | None = None


class _Live(msgspec.Struct, frozen=True):
    vtep: str | None = None
    boot: str = ""


class _Segment(msgspec.Struct, frozen=True):
    name: str
    tenant: str
    mtu: int
    vlan: int | None = None
    vni: int | None = None


class _Bridge(msgspec.Struct, frozen=True):
    host: str


class _Port(msgspec.Struct, frozen=True):
    seg: tuple[str, ...]
    owner: str
    phase: Phase
    epoch: int
    mac: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    next: str | None = None
    op: str = ""


class _Fdb(msgspec.Struct, frozen=True):
    o: str
    p: Phase
    e: int
    n: str | None = None
    m: tuple[str, ...] = ()
    i: tuple[str, ...] = ()


class Keys:
    """The keys of one cluster."""

    def __init__(self, cluster: str) -> None:
        self.root = f"/vxagent/v1/{cluster}/"
        self.schema = f"{self.root}schema"

    def live(self, host: str) -> str:
        """Goes when the host falls silent."""
        return f"{self.root}live/{host}"

    def host(self, host: str) -> str:
        """Stays."""
        return f"{self.root}host/{host}"

    def vtep(self, address: str) -> str:
        """Whose it is."""
        return f"{self.root}vtep/{address}"

    def segment(self, segment: str) -> str:
        """What the hosts agree on."""
        return f"{self.root}segment/{segment}"

    def numbers(self, segment: ClusterSegment) -> tuple[str, ...]:
        """The keys that say whose its VNI and VLAN are."""
        return tuple(f"{self.root}{kind}/{n}" for kind, n in (("vni", segment.vni), ("vlan", segment.vlan)) if n)

    def has(self, segment: str, host: str) -> str:
        """The host has the segment."""
        return f"{self.root}has/{segment}/{host}"

    def bridge(self, segment: str) -> str:
        """Who bridges it."""
        return f"{self.root}bridge/{segment}"

    def port(self, port: str) -> str:
        """Its binding."""
        return f"{self.root}port/{port}"

    def fdb(self, segment: str, port: str) -> str:
        """What the segment's hosts are told of its binding."""
        return f"{self.root}fdb/{segment}/{port}"

    def claims(self, binding: Binding) -> tuple[str, ...]:
        """The keys of what is its alone: MACs and addresses in each of its segments."""
        kinds = (("mac", binding.macs), ("ip", binding.addresses))
        return tuple(
            f"{self.root}{kind}/{segment}/{value}"
            for segment in binding.segments
            for kind, values in kinds
            for value in values
        )

    def ack(self, port: str, host: str) -> str:
        """On what the host acts."""
        return f"{self.root}ack/{port}/{host}"

    def carry(self, port: str) -> str:
        """What the next host needs of it."""
        return f"{self.root}carry/{port}"

    def all(self, *kinds: str) -> Range:
        """All keys of a kind, such as "live", or "fdb", "blue"."""
        return prefix(f"{self.root}{'/'.join(kinds)}/")

    def hosts_have(self, segment: str, host: str) -> tuple[Range, Range]:
        """All hosts that have the segment but this one: those before and those after it."""
        whole, own = self.all("has", segment), self.has(segment, host)
        return Range(whole.key, own), Range(own + "\0", whole.end)

    def of_cluster(self) -> tuple[Range, ...]:
        """What every host follows."""
        return self.all("host"), self.all("live")

    def of_segment(self, segment: str) -> tuple[Range, ...]:
        """What a host follows of a segment."""
        exact = (Range(self.segment(segment)), Range(self.bridge(segment)))
        return *exact, self.all("has", segment), self.all("fdb", segment)

    def words(self, key: str) -> list[str]:
        """The words of a key of this cluster: its kind and names."""
        return key.removeprefix(self.root).split("/")


def encode(value: object) -> bytes:
    """As JSON."""
    return msgspec.json.encode(value)


def host_value(host: ClusterHost) -> bytes:
    """Of `host/`."""
    return encode(_Host(host.vtep))


def live_value(live: Live) -> bytes:
    """Of `live/`."""
    return encode(_Live(live.vtep, live.boot))


def segment_value(segment: ClusterSegment) -> bytes:
    """Of `segment/`."""
    s = segment
    return encode(_Segment(name=s.name, tenant=s.tenant, vlan=s.vlan, vni=s.vni, mtu=s.mtu))


def bridge_value(host: str) -> bytes:
    """Of `bridge/`."""
    return encode(_Bridge(host))


def port_value(binding: Binding) -> bytes:
    """Of `port/`."""
    b = binding
    return encode(
        _Port(seg=b.segments, mac=b.macs, ip=b.ips, owner=b.owner, next=b.next, phase=b.phase, epoch=b.epoch, op=b.op)
    )


def fdb_value(binding: Binding) -> bytes:
    """Of `fdb/`, in each of its segments."""
    b = binding
    return encode(_Fdb(o=b.owner, n=b.next, p=b.phase, e=b.epoch, m=b.macs, i=b.ips))


def parse_schema(found: tuple[KeyValue, ...], cluster: str) -> SchemaValue | None:
    """Of `schema`; None if there is none yet.

    Raises:
        ClusterRefused: it is of a version that we do not know.
    """
    if not found:
        return None
    try:
        value = msgspec.json.decode(found[0].value, type=SchemaValue)
    except msgspec.MsgspecError as error:
        raise ClusterRefused(
            f"cluster {cluster} holds something else than vxagent's data ({error})", "give the cluster another name"
        ) from error
    if value.version != VERSION:
        raise ClusterRefused(
            f"cluster {cluster} is of version {value.version}, this vxagent knows {VERSION}",
            "use the vxagent that its other hosts have, or give this cluster another name",
        )
    return value


def parse_binding(keys: Keys, kv: KeyValue) -> Binding | Problem:
    """Of `port/`."""

    def build() -> Binding:
        (port,) = keys.words(kv.key)[1:]
        v = msgspec.json.decode(kv.value, type=_Port)
        return Binding(
            id=port,
            segments=v.seg,
            macs=v.mac,
            ips=v.ip,
            owner=v.owner,
            next=v.next,
            phase=v.phase,
            epoch=v.epoch,
            op=v.op,
            revision=kv.mod_revision,
        )

    return _built(kv, build)


def parse_name(found: tuple[KeyValue, ...]) -> str:
    """Of a key whose value is one name; "" if it is not there or holds none."""
    try:
        return msgspec.json.decode(found[0].value, type=str) if found else ""
    except msgspec.MsgspecError:
        return ""


def parse_revision(kv: KeyValue) -> int:
    """Of `ack/`; 0 if it holds none."""
    try:
        return msgspec.json.decode(kv.value, type=int)
    except msgspec.MsgspecError:
        return 0


def parse(keys: Keys, kv: KeyValue) -> Record | Problem:
    """What a followed key says."""
    kind, *names = keys.words(kv.key)
    reader = _READERS.get((kind, len(names)))
    if reader is None:
        return Problem(key=kv.key, why="is no key of this version's")
    return _built(kv, lambda: reader(kv, *names))


def key_of(keys: Keys, record: Record) -> str:
    """Where a record is kept."""
    match record:
        case ClusterHost():
            return keys.host(record.host)
        case Live():
            return keys.live(record.host)
        case ClusterSegment():
            return keys.segment(record.name)
        case Presence():
            return keys.has(record.segment, record.host)
        case Bridge():
            return keys.bridge(record.segment)
        case Projection():
            return keys.fdb(record.segment, record.port)


def _read_host(kv: KeyValue, host: str) -> Record:
    return ClusterHost(host=host, vtep=msgspec.json.decode(kv.value, type=_Host).vtep)


def _read_live(kv: KeyValue, host: str) -> Record:
    value = msgspec.json.decode(kv.value, type=_Live)
    return Live(host=host, vtep=value.vtep, boot=value.boot, session=kv.create_revision)


def _read_segment(kv: KeyValue, name: str) -> Record:
    v = msgspec.json.decode(kv.value, type=_Segment)
    if v.name != name:
        raise Invalid("name", v.name, "is not that of its key")
    return ClusterSegment(name=v.name, tenant=v.tenant, vlan=v.vlan, vni=v.vni, mtu=v.mtu)


def _read_has(kv: KeyValue, segment: str, host: str) -> Record:
    return Presence(segment=segment, host=host)


def _read_bridge(kv: KeyValue, segment: str) -> Record:
    return Bridge(segment=segment, host=msgspec.json.decode(kv.value, type=_Bridge).host)


def _read_fdb(kv: KeyValue, segment: str, port: str) -> Record:
    v = msgspec.json.decode(kv.value, type=_Fdb)
    return Projection(
        segment=segment,
        port=port,
        owner=v.o,
        next=v.n,
        phase=v.p,
        epoch=v.e,
        macs=v.m,
        ips=v.i,
        revision=kv.mod_revision,
    )


_READERS: dict[tuple[str, int], Callable[..., Record]] = {
    ("host", 1): _read_host,
    ("live", 1): _read_live,
    ("segment", 1): _read_segment,
    ("has", 2): _read_has,
    ("bridge", 1): _read_bridge,
    ("fdb", 2): _read_fdb,
}


def _built(kv: KeyValue, build: Callable[[], T]) -> T | Problem:
    try:
        return build()
    except (msgspec.MsgspecError, Invalid, ValueError) as error:
        return Problem(key=kv.key, why=" ".join(str(error).split()))

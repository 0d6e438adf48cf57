"""The loaded programs on a tap for each place, with a clock that stands still, and what they have counted and learned.

Frames go in through a tap, or by a test run; what leaves is read from the other taps.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzz.drawn import OWN_VTEPS, PLACES, VTEPS
from fuzz.grammar import Shot, Way
from fuzz.setting import DEVICE, FDB_ENTRIES, GROUPS, NEIGHBOURS, UNDERLAY, Setting
from reference.choices import TICKS_PER_NS
from support import frames
from support.clock import Clock
from support.rig import Rig, skb
from support.vxlan import read_packet, vxlan
from support.wires import Wires
from vxagent.core.tables import NeighbourOrigin, Origin, PortRow, split_fdb_key
from vxagent.datapath import abi, maps
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_prog import AttachType
from vxagent.datapath.ring import RingReader

SIZES = maps.Sizes(
    ports=16,
    segments=8,
    memberships=256,
    fdb=FDB_ENTRIES,
    moves=1024,
    addresses=256,
    neighbours=NEIGHBOURS,
    groups=GROUPS,
    counters=64,
    drops=512,
    events=64 * 1024,
)
BEGIN_NS = 10**15  # of a setting: so that nothing is older than the clock
SINK = "sink"


@dataclass(slots=True)
class Counted:
    """What is counted, learned and told: the programs' side reads it from maps, the reference's adds it up.

    Attributes:
        frames: (place, segment, verdict or reason) → (frames, bytes).
        sent: (place, segment) → (frames, bytes); lost: the same of copies that a rate refused.
        shadowed: as frames, of those that would have been dropped.
        copies: (place, segment) → made of its frames.
        fdb: (segment, MAC) → (place, origin, seen).
        moves: (segment, MAC) → (home, began, count, held).
        neighbours: (segment, address) → (place, MAC, leased, until when); leases, refused: by place.
        members: (segment, place, group) → until when.
        listening: (place, segment) → (router, settled, joins, refused); queriers: segment → (began, until). Times are
            pairs, of IPv4 and IPv6.
        learning: place → (learned, limited, moved, full, held), where not all are 0.
        buckets: (place, limit) → ticks until it is full, where it is not.
        events: (type, place, other, segment, MAC); suppressed: by place, those that were not told.
        telling: (place, type) → ticks until it may tell as many at once as ever, where it may not.
    """

    frames: dict[tuple[int, int, str], tuple[int, int]] = field(default_factory=dict)
    sent: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    lost: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    shadowed: dict[tuple[int, int, str], tuple[int, int]] = field(default_factory=dict)
    copies: dict[tuple[int, int], int] = field(default_factory=dict)
    fdb: dict[tuple[int, int], tuple[int, str, int]] = field(default_factory=dict)
    moves: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)
    neighbours: dict[tuple[int, bytes], tuple[int, int, bool, int]] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    members: dict[tuple[int, int, bytes], int] = field(default_factory=dict)
    listening: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    queriers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    learning: dict[int, tuple[int, ...]] = field(default_factory=dict)
    buckets: dict[tuple[int, str], int] = field(default_factory=dict)
    events: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    suppressed: dict[int, int] = field(default_factory=dict)
    telling: dict[tuple[int, str], int] = field(default_factory=dict)


class Bench:
    """Programs, taps and a clock; made once for many settings. Close it.

    Args:
        cache: directory for bytecode.
    """

    def __init__(self, cache: Path) -> None:
        self.clock = Clock()
        self.rig = Rig(cache, SIZES, clock=self.clock)
        self.prelude = self.rig.prelude()
        self.ring = RingReader(self.rig.maps["events"])
        self.wires = Wires(
            (*range(1, PLACES + 1), UNDERLAY), *map(self.rig.program, ("vx_tc", "vx_xdp")), name="fuzz", offloads=True
        )
        self.wires.namespace.ip("link", "add", SINK, "type", "ifb")
        self.wires.namespace.ip("link", "set", SINK, "up")
        with self.wires.inside():
            self._sink = socket.if_nametoindex(SINK)
        self._out = self._join_underlay()
        self._tunnels: dict[str, int] = {}  # VTEP → place
        self._own_vtep = ""
        self._receivers: dict[int, int] = {}  # place → ifindex, of those that XDP may send to
        self._reached = False
        self._counters: dict[int, tuple[int, int]] = {}  # index into traffic → (place, segment)

    def close(self) -> None:
        """Remove everything."""
        self._out.close()
        self.wires.close()
        self.ring.close()
        self.rig.close()
        self.clock.close()

    @contextmanager
    def inside(self) -> Iterator[Bench]:
        """The calling thread where the taps are; only there frames can be shot."""
        with self.wires.inside():
            yield self

    def _join_underlay(self) -> Link:
        """The kernel knows the way to all VTEPs, and the program that asks for it runs there."""
        namespace = self.wires.namespace
        for address in OWN_VTEPS:
            namespace.ip("address", "add", f"{address}/24", "dev", DEVICE)
        for address in VTEPS:
            namespace.ip("neigh", "replace", address, "lladdr", "06:00:00:00:00:02", "nud", "permanent", "dev", DEVICE)
        with self.wires.inside():
            return Link.create(self.rig.program("vx_out"), AttachType.TCX_EGRESS, self.wires.ifindex[UNDERLAY])

    def load(self, setting: Setting, *, mute: bool) -> None:
        """Empty all tables and set this. mute: copies go to a device that nobody hears."""
        self.heard()
        self.ring.read()
        self.rig.clear()
        self._reach(False)
        self.clock.set(BEGIN_NS)
        state = setting.state(self.wires.ifindex)
        for (table, key), row in setting.rows(state).items():
            silenced = replace(row, ifindex=self._sink) if mute and isinstance(row, PortRow) and row.ifindex else row
            self.rig.put(table, key, silenced)
        self._receivers = {
            place: self._sink if mute else self.wires.ifindex[place] for place, _ in enumerate(setting.ports, 1)
        }
        self._own_vtep = setting.own_vtep
        self._tunnels = {
            vtep.address: at for at, vtep in enumerate(setting.vteps, len(setting.ports) + len(setting.uplinks) + 1)
        }
        levels: dict[int, dict[str, int]] = {}
        for (place, name), full_at in setting.levels(BEGIN_NS).items():
            levels.setdefault(place, {})[name] = full_at
        for place, words in levels.items():
            self.rig.maps["buckets"].update(struct.pack("=I", place), abi.BUCKETS.pack(**words))
        for place, full_at in setting.telling(BEGIN_NS).items():
            value = abi.TELLING.struct.pack(0, *[full_at] * len(abi.EventType))
            self.rig.maps["telling"].update(struct.pack("=I", place), value)
        self._counters = {
            index: (place, setting.number_of(segment) if segment else 0)
            for place, name in enumerate(setting.names(), 1)
            for segment, index in state.counters_of(name).items()
        }
        if setting.vteps:
            self._counters[state.counters_of(state.underlay)[None]] = setting.underlay, 0

    def _reach(self, wanted: bool) -> None:
        """Whether XDP may finish frames: it can for all that are no uplinks."""
        if wanted == self._reached:
            return
        self._reached = wanted
        devices = self.rig.maps["xdp_devices"]
        for place, ifindex in self._receivers.items():
            if wanted:
                devices.update(struct.pack("=I", place), struct.pack("=I", ifindex))
            else:
                devices.delete(struct.pack("=I", place))

    def shoot(self, shot: Shot) -> tuple[int, bytes] | None:
        """Let a frame come in; what a test run returns, and the frame after it."""
        if shot.after_ns:
            self.clock.set(self.clock.now + shot.after_ns)
        if shot.way in (Way.WIRE, Way.XDP):
            self._reach(shot.way is Way.XDP)
            if shot.vni:
                self.wires.write(UNDERLAY, self._packet(shot))
            else:
                self.wires.write(shot.place, shot.octets, shot.header)
            return None
        octets, program = shot.octets, self.rig.program("vx_tc")
        members = {"ifindex": self.wires.ifindex[shot.place], "gso_size": shot.gso_size}
        if shot.way is Way.METADATA:
            members["mark"] = int.from_bytes(octets[12:16], "big")
            octets, program = frames.untag(octets), self.prelude
        done = program.test_run(octets, skb(**members))
        return done.verdict, done.data

    def heard(self) -> dict[int, list[bytes]]:
        """Place → frames that have arrived there since this was last asked."""
        heard = {place: self.wires.read(place, 0) for place in self.wires.ifindex}
        for packet in map(read_packet, heard.pop(UNDERLAY)):
            if packet is not None:  # the kernel has something to say there, too
                assert (packet.sender, packet.checksum) == (self._own_vtep, 0)
                place = self._tunnels[packet.receiver]
                heard.setdefault(place, []).append(packet.vni.to_bytes(3, "big") + packet.frame)
        return {place: arrived for place, arrived in heard.items() if arrived}

    def _packet(self, shot: Shot) -> bytes:
        """As the VTEP sends it."""
        sender = next(address for address, place in self._tunnels.items() if place == shot.place)
        l3 = vxlan(shot.octets, sender, self._own_vtep, vni=shot.vni)
        return frames.ethernet(frames.mac(9), bytes.fromhex("060000000002"), l3)

    def counted(self) -> Counted:
        """Since the setting was loaded; events since this was last asked."""
        found = Counted()
        self._read_traffic(found)
        self._read_drops(found)
        for key, value in self._rows("fdb"):
            entry = abi.FDB_ENTRY.unpack(value)
            origin = Origin(entry["origin"]).name.lower()
            found.fdb[split_fdb_key(*struct.unpack("=Q", key))] = entry["port"], origin, entry["seen_ns"]
        for key, value in self._rows("moves"):
            row = abi.MOVES_ROW.unpack(value)
            moved = row["home"], row["began_ns"], row["count"], row["held_ns"]
            found.moves[split_fdb_key(*struct.unpack("=Q", key))] = moved
        self._read_groups(found)
        self._read_neighbours(found)
        for key, value in self._rows("learning"):
            if any(value):
                found.learning[struct.unpack("=I", key)[0]] = abi.LEARNING.struct.unpack(value)
        for key, value in self._rows("buckets"):
            for name, full_at in abi.BUCKETS.unpack(value).items():
                if full_at > self.clock.now * TICKS_PER_NS:
                    found.buckets[struct.unpack("=I", key)[0], name] = full_at
        self._read_events(found)
        return found

    def _read_events(self, found: Counted) -> None:
        for key, value in self._rows("telling"):
            (place,), (suppressed, *buckets) = struct.unpack("=I", key), abi.TELLING.struct.unpack(value)
            if suppressed:
                found.suppressed[place] = suppressed
            for event, full_at in zip(abi.EventType, buckets, strict=True):
                if full_at > self.clock.now * TICKS_PER_NS:
                    found.telling[place, event.name.lower()] = full_at
        for record in self.ring.read():
            _, kind, place, other, segment, mac, _ = abi.EVENT.struct.unpack(record[: abi.EVENT.size])
            found.events.append((abi.EventType(kind).name.lower(), place, other, segment, int.from_bytes(mac, "big")))

    def _rows(self, name: str) -> Iterator[tuple[bytes, memoryview]]:
        size = self.rig.maps[name].spec.key_size
        for batch in self.rig.maps[name].batches():
            for at in range(batch.count):
                yield bytes(batch.keys[at * size : (at + 1) * size]), batch.value(at)

    def _read_neighbours(self, found: Counted) -> None:
        for _, value in self._rows("neighbours"):
            place, segment, family, origin, octets, mac, expires = abi.NEIGHBOUR.struct.unpack(value)
            leased = origin == NeighbourOrigin.LEASED
            found.neighbours[segment, octets[: 4 if family == 4 else 16]] = place, mac, leased, expires
        for name, counter in (("leases", found.leases), ("leases_refused", found.refused)):
            for key, value in self._rows(name):
                if any(value):
                    counter[struct.unpack("=I", key)[0]] = struct.unpack("=q", value)[0]

    def _read_groups(self, found: Counted) -> None:
        for _, value in self._rows("groups"):
            row = abi.GROUP.struct.unpack(value)
            segment, place, family, _, octets, _, expires = row
            found.members[segment, place, octets[: 4 if family == 4 else 16]] = expires
        for key, value in self._rows("listening"):
            if any(value):
                found.listening[self._counters[struct.unpack("=I", key)[0]]] = abi.LISTENING.struct.unpack(value)[1:]
        for key, value in self._rows("queriers"):
            if any(value):
                found.queriers[struct.unpack("=I", key)[0]] = abi.QUERIERS.struct.unpack(value)

    def _read_traffic(self, found: Counted) -> None:
        verdicts = list(abi.Verdict)[: abi.COUNTED_VERDICTS]
        for key, value in self._rows("traffic"):
            if not any(value):
                continue
            sums = [sum(column) for column in zip(*abi.TRAFFIC.struct.iter_unpack(value), strict=True)]
            place, segment = self._counters.get(struct.unpack("=I", key)[0], (-1, -1))
            for verdict in verdicts:
                if sums[verdict]:
                    found.frames[place, segment, verdict.name.lower()] = sums[verdict], sums[len(verdicts) + verdict]
            sent, octets, copies = sums[-3:]
            if sent:
                found.sent[place, segment] = sent, octets
            if copies:
                found.copies[place, segment] = copies

    def _read_drops(self, found: Counted) -> None:
        for key, value in self._rows("drops"):
            place, segment, reason, kind = abi.DROP_KEY.struct.unpack(key)
            packets, octets = (sum(column) for column in zip(*abi.DROP_COUNT.struct.iter_unpack(value), strict=True))
            match abi.DropKind(kind):
                case abi.DropKind.FRAME:
                    found.frames[place, segment, abi.reason_label(reason)] = packets, octets
                case abi.DropKind.COPY:
                    found.lost[place, segment] = packets, octets
                case abi.DropKind.SHADOW:
                    found.shadowed[place, segment, abi.reason_label(reason)] = packets, octets

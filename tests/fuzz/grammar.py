"""Frames of every shape. One number makes one frame: it seeds the choices, so a failing frame is told in one number.

Most are nearly right, because a frame with three things wrong is dropped for the first and shows nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from fuzz import l3
from fuzz.drawn import macs_of
from fuzz.setting import Setting
from support import frames
from support.frames import BROADCAST, C_TAG, L3, LINK_LOCAL, S_TAG, TPIDS, ethernet, vlan
from support.wires import NO_OFFLOAD
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

T = TypeVar("T")

PLAIN, CROWD, FLAP, GROUPS, LEASES, QUESTIONS, TRAFFIC = (
    "plain",
    "crowd",
    "flap",
    "groups",
    "leases",
    "questions",
    "traffic",
)
GSO_TCPV4, GSO_TCPV6 = 1, 4  # <linux/virtio_net.h>
GSO_SIZES = (0xFFFF, 8, 100, 536, 552, 1000, 1440, 1448, 1460, 1472, 1480, 8960, 8976)  # 0xffff: GSO_BY_FRAGS
LARGEST_RUN = 3_000  # what a test run takes of one page
TAGGED = (C_TAG.to_bytes(2, "big"), S_TAG.to_bytes(2, "big"))
NO_VNI = 77  # no segment has it
LEAST_TAGGED = 20  # the kernel takes a tag off before any program runs, and drops what is shorter


class Way(StrEnum):
    """How a frame gets into the program."""

    WIRE = "wire"  # through the tap; the kernel moves an outer tag to skb->vlan_tci
    XDP = "xdp"  # the same, and XDP may finish it
    BYTES = "bytes"  # a test run with all tags in the bytes
    METADATA = "metadata"  # a test run with the outermost tag in skb->vlan_tci


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A frame that comes in.

    Attributes:
        place: its number.
        octets: with all of its tags.
        vni: from a VTEP, of its packet.
        header: struct virtio_net_hdr, on the wire.
        after_ns: so much later than the one before.
        kinds: what it is, for the histogram.
    """

    place: int
    octets: bytes
    vni: int = 0
    way: Way = Way.BYTES
    gso_size: int = 0
    header: bytes = NO_OFFLOAD
    after_ns: int = 0
    kinds: tuple[str, ...] = ()


class Cast:
    """Who is in a setting: the addresses that its frames go by.

    Args:
        mute: nobody hears the copies, so that GSO frames may be of any shape.
        theme: `PLAIN`: a bit of everything; `CROWD`: MACs that are ever new; `FLAP`: one MAC from all over the place;
            `GROUPS`: mostly multicast, and time that goes by; `LEASES`: mostly DHCP; `QUESTIONS`:
            mostly for MACs; `TRAFFIC`: mostly TCP and UDP between stations that know each other, which XDP finishes.
    """

    def __init__(self, setting: Setting, *, mute: bool, theme: str) -> None:
        self.setting, self.mute, self.theme = setting, mute, theme
        self.places = range(1, len(setting.names()) + 1)
        self.between = {number: setting.between(number) for number in self.places}
        self.plugged = [number for number in self.places if number not in setting.deviceless] or self.places
        self.leased = {number for number, port in enumerate(setting.ports, 1) if port.dhcp_snoop}
        self.servers = [number for number in self.plugged if self._serves(number)]
        self.learners = [n for n in self.plugged if n > len(setting.ports) or not setting.ports[n - 1].macs]
        self.listed = {number: self._listed(number) for number in self.places}
        self.clients = {number: self._clients(number) for number in self.places}
        self.mates = {number: self._mates(number) for number in self.places}
        self.friends = [number for number in self.plugged if self.mates[number]][:3]
        self.tags = {number: self._tags(number) for number in self.places}

    def _segments(self, number: int) -> set[str]:
        return {segment for segment, _ in self.between[number]}

    def _serves(self, number: int) -> bool:
        """Whether a DHCP server is believed there, and somebody is held to what it says."""
        believed = number > len(self.setting.ports) or self.setting.ports[number - 1].trusted
        return believed and bool(self.leased & set(self._others(number)))

    def _mates(self, number: int) -> list[tuple[int, int]]:
        """(place, VID): who is in a segment with it, and how its own frames are tagged there, 0 for not at all."""
        isolated = {at for at, port in enumerate(self.setting.ports, 1) if port.isolated}
        return [
            (at, vid)
            for name, vid in self.between[number]
            for at in self.plugged
            if at != number and name in self._segments(at) and not isolated >= {at, number}
        ]

    def _others(self, number: int) -> list[int]:
        """Ports that are where a place is."""
        return [
            at
            for at, _ in enumerate(self.setting.ports, 1)
            if at != number and self._segments(at) & self._segments(number)
        ]

    def _listed(self, number: int) -> list[str]:
        """Addresses that others list where a place is, each with one MAC."""
        others = [self.setting.ports[at - 1] for at in self._others(number)]
        return [address for port in others for address in port.ips if "/" not in address and len(port.macs) == 1]

    def _clients(self, number: int) -> list[int]:
        """Ports that a DHCP server there could lease to, or else all."""
        return [at for at in self._others(number) if at in self.leased] or list(self.places)

    def _tags(self, number: int) -> list[int]:
        """VIDs with which a place's frames are in a segment, 0 for none."""
        return [vid for _, vid in self.between[number]] or ([0] if self.setting.vtep(number) else [99])


def shoot(cast: Cast, seed: int) -> Shot:
    """The frame of a number."""
    return _Gunner(cast, Random(seed)).shot()


class _Gunner:
    """Makes one frame."""

    def __init__(self, cast: Cast, rng: Random) -> None:
        self.cast = cast
        self.rng = rng
        special = {
            LEASES: cast.servers,
            FLAP: cast.learners,
            CROWD: cast.learners,
            TRAFFIC: cast.friends,
        }.get(cast.theme)
        places = special if special and rng.random() < 0.6 else cast.plugged
        self.place = rng.choice(places) if rng.random() < 0.98 else rng.choice(cast.places)
        self.kinds: list[str] = []

    def pick(self, *options: tuple[int, T]) -> T:
        """One of (weight, value)."""
        at = self.rng.randrange(sum(weight for weight, _ in options))
        for weight, value in options:
            at -= weight
            if at < 0:
                return value
        raise AssertionError

    def one(self, values: Sequence[T]) -> T:
        return self.rng.choice(values)

    def shot(self) -> Shot:
        source = self._source()
        who = l3.Speaker(
            self.rng,
            self.place,
            source,
            [self._mac(number) for number in self.cast.places],
            self.cast.listed[self.place],
            self.cast.clients[self.place],
            self.place in self.cast.servers,
            self.place in self.cast.leased,
        )
        if self.cast.theme == TRAFFIC and self.rng.random() < 0.8 and self.cast.mates[self.place]:
            return self._traffic()
        special = {GROUPS: l3.groups, LEASES: l3.leases, QUESTIONS: l3.questions}.get(self.cast.theme)
        inside, kind, destination = special(who) if special and self.rng.random() < 0.75 else l3.draw(who)
        tags = self._tags()
        if destination is None or self.rng.random() < 0.03:
            destination = self._destination()
        octets = ethernet(destination, source, inside, *tags)
        self.kinds += [kind, f"tags {len(tags) if len(tags) < 4 else '4+'}"]
        spoilt = self._spoil(octets)
        gso_size, header = self._gso(inside, tags, spoilt, whole=spoilt is octets)
        if any(header):
            spoilt = self._leave_checksum(spoilt, header)
        if len(octets) > 1514 + 4 * len(tags) and not gso_size:
            self.kinds.append("jumbo")
        return Shot(
            place=self.place,
            octets=spoilt,
            vni=self._vni(),
            way=self._way(spoilt, gso_size, header),
            gso_size=gso_size,
            header=header,
            after_ns=self._later(),
            kinds=tuple(self.kinds),
        )

    def _traffic(self) -> Shot:
        """To a station in the same segment, which most likely has spoken before."""
        mate, vid = self.one(self.cast.mates[self.place][:2])
        source = self._mac(self.place) if self.rng.random() < 0.95 else self._source()
        who = l3.Speaker(self.rng, self.place, source, [], [], [], serves=False, leased=False)
        ips = self.cast.setting.ports[self.place - 1].ips if self.place <= len(self.cast.setting.ports) else ()
        inside, kind, header_at = l3.traffic(who, ips if self.rng.random() < 0.9 else ())
        tags = [self._tag(vid)] if vid else []
        if self.cast.setting.vteps:
            header_at = 0
        octets = ethernet(self._mac(mate), source, inside, *tags)
        self.kinds += [f"traffic, {kind}", f"tags {len(tags)}"]
        header = NO_OFFLOAD
        if header_at:
            field = 16 if inside.data[6 if inside.ethertype == frames.IPV6 else 9] == frames.TCP else 6
            header = VNET_HDR.pack(NEEDS_CSUM, 0, 0, 0, len(octets) - len(inside.data) + header_at, field)
        spoilt = self._spoil(octets) if not header_at and self.rng.random() < 0.3 else octets
        way = self._way(spoilt, 0, header)
        return Shot(
            place=self.place,
            octets=spoilt,
            vni=self._vni(),
            way=way,
            header=header,
            after_ns=self._later(),
            kinds=tuple(self.kinds),
        )

    def _vni(self) -> int:
        """Of the packet that it comes in; 0: in none."""
        vtep = self.cast.setting.vtep(self.place)
        if vtep is None:
            return 0
        own = {segment.vni for segment in self.cast.setting.segments if segment.vni is not None}
        self.kinds.append("from a VTEP")
        return self.one([*vtep.vnis * 8, *sorted(own)] or [NO_VNI])

    def _mac(self, number: int) -> bytes:
        return bytes.fromhex(macs_of(number)[0].replace(":", ""))

    def _source(self) -> bytes:
        uplink = self.place > len(self.cast.setting.ports)
        number = self.pick((2 if uplink else 8, self.place), (1, self.one(self.cast.places)))
        known = bytes.fromhex(self.one(macs_of(number)).replace(":", ""))
        return self.pick(
            (60, self._mac(self.place)),
            (60 if uplink else 15, known),
            (600 if self.cast.theme == CROWD else 8, frames.mac(0x1000 + self.rng.randrange(200))),
            (150 if self.cast.theme == FLAP else 0, frames.mac(0x2000)),
            (3, self._mac(self.one(self.cast.places))),
            (2, frames.mac(0x50)),
            (1, self.one((bytes(6), BROADCAST, frames.MULTICAST, bytes([3]) + bytes(5)))),
        )

    def _destination(self) -> bytes:
        group = self.one(
            (0x01005E000001, 0x01005E7F0001, 0x333300000001, 0x3333FF000001, 0x01000CCCCCCC, 0x0180C2000010)
        )
        return self.pick(
            (60, self._mac(self.one(self.cast.plugged))),
            (5, bytes.fromhex(self.one(macs_of(self.one(self.cast.places))).replace(":", ""))),
            (15, BROADCAST),
            (9, group.to_bytes(6, "big")),
            (6, frames.mac(0x1000 + self.rng.randrange(200))),
            (3, frames.mac(0x50)),
            (3, LINK_LOCAL[:5] + bytes([self.rng.randrange(17)])),
            (1, bytes(6)),
        )

    def _tags(self) -> list[bytes]:
        vid = self.one(self.cast.tags[self.place])
        first = self.pick(
            (85, [self._tag(vid)] if vid else []),
            (4, [self._tag(0)]),
            (3, [self._tag(vid, self.one(TPIDS))]),
            (3, [self._tag(self.one((1, 10, 20, 30, 100, 101, 200, 4095)))]),
            (3, []),
        )
        further = self.pick((86, 0), (8, 1), (3, 2), (1, 3), (1, self.rng.randrange(4, 13)))
        return first + [
            self._tag(self.one((0, 0, vid, 10, 4095)), self.one((C_TAG, C_TAG, *TPIDS))) for _ in range(further)
        ]

    def _tag(self, vid: int, tpid: int = C_TAG) -> bytes:
        return vlan(vid, pcp=self.rng.randrange(8), dei=self.rng.randrange(2), tpid=tpid)

    def _spoil(self, octets: bytes) -> bytes:
        how = self.pick((84, None), (8, self._truncate), (8, self._mutate))
        spoilt = how(octets) if how else octets
        if self.cast.setting.vteps and spoilt[12:14] in TAGGED and len(spoilt) < LEAST_TAGGED:
            return spoilt.ljust(LEAST_TAGGED, bytes(1))  # all go by the wire
        return spoilt

    def _truncate(self, octets: bytes) -> bytes:
        self.kinds.append("truncated")
        return octets[: self.rng.randrange(15, max(16, min(len(octets), 120)))]

    def _mutate(self, octets: bytes) -> bytes:
        self.kinds.append("mutated")
        changed = bytearray(octets)
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(min(len(changed), 110))
            changed[at] = self.one(
                (0, 1, 0x80, 0xFF, self.rng.randrange(256), changed[at] ^ 1 << self.rng.randrange(8))
            )
        return bytes(changed)

    def _gso(self, inside: L3, tags: list[bytes], octets: bytes, *, whole: bool) -> tuple[int, bytes]:
        """(gso_size, header) of a frame that stands for several; whole: nothing of it is spoilt."""
        tcp_at = l3.tcp_at(inside)
        if self.cast.setting.vteps or self.rng.randrange(10 if tcp_at is None and not self.cast.mute else 2):
            return 0, NO_OFFLOAD
        if self.cast.mute and _runs(octets):
            self.kinds.append("gso, any")
            return self.one((*GSO_SIZES, self.rng.randrange(1, 9000))), NO_OFFLOAD
        plain = whole and len(tags) < 2 and all(tag.startswith(b"\x81\x00") for tag in tags)
        if tcp_at is None or not plain:
            return 0, NO_OFFLOAD
        return self._tso(inside.ethertype, len(octets) - len(inside.data) + tcp_at, octets)

    def _tso(self, ethertype: int, tcp_at: int, octets: bytes) -> tuple[int, bytes]:
        """Of TCP, as the kernel takes it from a VM; others it would refuse, or drop when they leave."""
        headers = tcp_at + 4 * (octets[tcp_at + 12] >> 4)
        if len(octets) <= headers + 1:
            return 0, NO_OFFLOAD
        self.kinds.append("gso, tcp")
        size = self.rng.randrange(1, min(len(octets) - headers, 9000))
        kind = GSO_TCPV4 if ethertype == frames.IPV4 else GSO_TCPV6
        return size, VNET_HDR.pack(NEEDS_CSUM, kind, headers, size, tcp_at, 16)

    def _leave_checksum(self, octets: bytes, header: bytes) -> bytes:
        """With the sum of the pseudo-header where the checksum will be, as who leaves that to the NIC leaves it; the
        programs go by it."""
        _, kind, _, _, start, offset = VNET_HDR.unpack(header)
        addresses = octets[start - (32 if kind == GSO_TCPV6 else 8) : start]
        pseudo = addresses + struct.pack("!HH", frames.TCP, len(octets) - start)
        at = start + offset
        return octets[:at] + frames.complement(frames.checksum(pseudo)) + octets[at + 2 :]

    def _way(self, octets: bytes, gso_size: int, header: bytes) -> Way:
        tagged = octets[12:14] in TAGGED
        if self.cast.setting.vteps:
            return self.one((Way.WIRE, Way.XDP))
        ways = {
            Way.WIRE: 3 if not tagged or len(octets) >= LEAST_TAGGED else 0,
            Way.XDP: 5 if not tagged or len(octets) >= LEAST_TAGGED else 0,
            Way.BYTES: 2 if _runs(octets) else 0,
            Way.METADATA: 2 if tagged and len(octets) >= LEAST_TAGGED and _runs(frames.untag(octets)) else 0,
        }
        if any(header):
            return self.pick((1, Way.WIRE), (2, Way.XDP))
        if gso_size:
            ways[Way.WIRE] = ways[Way.XDP] = 0
        return self.pick(*((weight, way) for way, weight in ways.items()))

    def _later(self) -> int:
        return self.pick(
            (80, 0),
            (10, self.rng.randrange(1, 10_000_000)),
            (4, 250_000_000),
            (4, 1_000_000_000 + self.rng.randrange(-1, 2)),
            (15 if self.cast.theme == GROUPS else 1, 5_000_000_000 + self.rng.randrange(2)),
            (0 if self.cast.theme in (FLAP, TRAFFIC) else 1, 300_000_000_000 + self.rng.randrange(2)),
        )


def _runs(octets: bytes) -> bool:
    """Whether the kernel takes a frame for a test run: not longer than a page, and with the IP header it announces."""
    least = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(octets[12:14], 15)
    return least <= len(octets) <= LARGEST_RUN

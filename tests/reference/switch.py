"""The table of a frame's walk, from top to bottom; the numbers are its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from reference import guards, headers, leases
from reference.answers import addressed, arp_answer, arp_question, nd_answer, nd_question
from reference.choices import LEAST_IN_TUNNEL, MOST_TAGS, TAGS_OF_ETHERNET
from reference.events import Events
from reference.fdb import CLUSTER, LEARNED, Entry, Fdb, is_group
from reference.groups import Groups
from reference.headers import ARP, C_TAG, IPV6, Malformed
from reference.multicast import Multicast, hear
from reference.rates import Load, Rates
from reference.tables import Port, Segment
from reference.walk import Decided, Outcome, Walk

BROADCAST = 0xFFFFFFFFFFFF
LINK_LOCAL = 0x0180C200000  # the first 44 bits


class Switch:
    """What is set, and what is remembered.

    Attributes:
        segments, ports: by number.
        fdb, rates, groups, neighbours: what it remembers of stations, frames a second, multicast and addresses.
    """

    def __init__(
        self,
        segments: dict[int, Segment],
        ports: Iterable[Port],
        *,
        ageing: int,
        capacity: int,
        groups: int,
        neighbours: int,
    ) -> None:
        self.segments = segments
        self.ports = {port.number: port for port in ports}
        self.rates = Rates()
        self.events = Events()
        self.fdb = Fdb(self.ports, ageing, capacity, self.events)
        self.groups = Groups(groups)
        self.neighbours = leases.Neighbours(self.ports, segments, neighbours, self.events)
        for port in self.ports.values():
            for segment in port.segments:
                self.fdb |= {(segment, mac): Entry(port=port.number, listed=True) for mac in port.macs}

    def receive(self, port: int, octets: bytes, now: int, gso_size: int = 0, segment: int = 0) -> Outcome:
        """A frame, all tags in its bytes, at a time in nanoseconds.

        Args:
            gso_size: payload of each of its segments.
            segment: from a VTEP, in whose packet it was.
        """
        if port not in self.ports:
            return Outcome("no_destination", 0)
        walk = Walk(self.ports[port], octets, gso_size, now, segment)
        try:
            outcome = self._leave_tunnel(walk) if walk.port.vtep else self._walk(walk)
        except Decided as decided:
            outcome = Outcome(decided.fate, walk.segment)
        return replace(outcome, shadowed=tuple(walk.shadowed))

    def _walk(self, walk: Walk) -> Outcome:
        self._parse(walk)  # 1
        self._keep_link_local(walk)  # 2
        self._classify(walk)  # 3
        if walk.source == 0 or is_group(walk.source):  # 4
            raise Decided("src_invalid")
        self._hear(walk)  # 4a
        if walk.port.state not in ("up", "draining"):
            raise Decided("standby")
        self._enforce(walk, self._mac_source(walk))  # 5, 6
        leased = self._leased(walk)
        self._enforce(walk, guards.ip_source(walk.port, walk.seen, leased))  # 7
        self._enforce(walk, guards.neighbour(walk.port, walk.octets, walk.seen, self._may_name(walk), leased))  # 8
        self._enforce(walk, guards.server(walk.port, walk.seen))  # 9
        return self._go_on(walk)

    def _leave_tunnel(self, walk: Walk) -> Outcome:
        """From a VTEP: the segment is known, and who may send in it."""
        if walk.segment not in walk.port.tunnels:  # 0
            raise Decided("vtep_denied")
        if len(walk.octets) < LEAST_IN_TUNNEL:
            raise Decided("malformed")
        self._parse(walk)  # 1
        if walk.ethernet.destination >> 4 == LINK_LOCAL:  # 2
            raise Decided("link_local")
        if walk.ethernet.tags:  # 3
            raise Decided("vlan_denied")
        if walk.source == 0 or is_group(walk.source):  # 4
            raise Decided("src_invalid")
        return self._go_on(walk)

    def _go_on(self, walk: Walk) -> Outcome:
        known = self.fdb.find((walk.segment, walk.destination), walk.now)  # 10
        to = self.ports.get(known.port) if known else None
        vid = to.vid_of(walk.segment) if to else None
        if walk.followed_by_tag and vid == 0:  # 3
            raise Decided("vlan_denied")
        self._enforce(walk, self._arrival(walk, known is not None))  # 11
        if reply := self._answer(walk):  # 12
            return reply
        self.fdb.learn(  # 13
            (walk.segment, walk.source), walk.port, walk.now, lambda: self.rates.take(walk.port, {"learn": 1}, walk.now)
        )
        if known and known.port == walk.port.number:  # 14
            raise Decided("hairpin")
        if to and walk.port.isolated and to.isolated:
            raise Decided("isolated")
        if walk.l3_bytes > self.segments[walk.segment].mtu:  # 15
            raise Decided("mtu_exceeded")
        if to and vid is not None and not self._may_depart(walk, to, vid):
            raise Decided("rate_limited")
        if known:  # 16
            if to is None or vid is None or not to.can_receive or walk.port.is_like(to):
                raise Decided("no_destination")
            self._follow_dhcp(walk)
            return Outcome("forwarded", walk.segment, ((to.number, walk.copy(vid)),))
        if not is_group(walk.destination) and self.segments[walk.segment].drop_unknown:  # 17
            raise Decided("unknown_unicast")
        return self._flood(walk)  # 18

    def _hear(self, walk: Walk) -> None:
        """A VM that has arrived says so: a port that holds its frames comes up."""
        if walk.port.state not in ("standby", "holding") or not is_group(walk.destination):
            return
        if walk.source in walk.port.macs and guards.is_announcement(walk.port, walk.octets, walk.seen):
            self.events.tell(("announced", walk.port.number, 0, walk.segment, walk.source), walk.now)
            if walk.port.state == "holding":
                walk.port.state = "up"

    def _enforce(self, walk: Walk, reasons: Iterable[str]) -> None:
        """One stage of what a port has asked for itself: it drops, or in shadow counts that it would."""
        for reason in reasons:
            if not walk.port.shadow:
                raise Decided(reason)
            walk.shadowed.append((walk.segment, reason))
            walk.refused = True
            return

    def _parse(self, walk: Walk) -> None:
        octets = walk.octets
        try:
            walk.ethernet = outer = headers.ethernet(octets, TAGS_OF_ETHERNET)
            walk.l3_bytes = len(octets) - outer.payload
            if walk.gso_size:
                walk.l3_bytes = headers.segment_bytes(octets, outer.kind, outer.payload, walk.gso_size)
        except Malformed:
            raise Decided("malformed") from None
        if not walk.port.inspected:
            return
        try:
            walk.seen = guards.inspect(octets, headers.ethernet(octets, MOST_TAGS), walk.port)
        except Malformed:
            walk.unreadable = True
            self._enforce(walk, ["malformed"])

    def _keep_link_local(self, walk: Walk) -> None:
        if walk.ethernet.destination >> 4 == LINK_LOCAL:
            raise Decided("to_host" if walk.port.uplink else "link_local")

    def _classify(self, walk: Walk) -> None:
        tpid, tci = walk.ethernet.tags[0] if walk.ethernet.tags else (C_TAG, 0)
        vid = tci & 0xFFF
        segment = walk.port.tagged.get(vid) if vid else walk.port.untagged
        if tpid != C_TAG or segment is None:
            raise Decided("to_host" if walk.port.uplink else "vlan_denied")
        walk.segment = segment

    def _mac_source(self, walk: Walk) -> Iterator[str]:
        """Steps 5 and 6."""
        port, entry = walk.port, self.fdb.find((walk.segment, walk.source), walk.now)
        if port.macs and not self._lists(walk, walk.source):
            yield "src_mac_denied"
        if entry is None or entry.origin == LEARNED or entry.port == port.number:
            return
        owner = self.ports.get(entry.port)
        left = entry.origin == CLUSTER and port.migrating
        if not left and not (port.uplink and owner and owner.migrating):
            yield "src_mac_conflict"

    def _lists(self, walk: Walk, mac: int) -> bool:
        entry = self.fdb.find((walk.segment, mac), walk.now)
        return entry is not None and entry.listed and entry.port == walk.port.number

    def _may_name(self, walk: Walk) -> Callable[[int], bool]:
        return lambda mac: mac == walk.source or (bool(walk.port.macs) and self._lists(walk, mac))

    def _leased(self, walk: Walk) -> Callable[[bytes], bool]:
        def leased(address: bytes) -> bool:
            found = self.neighbours.find(walk.segment, address, walk.now)
            return found is not None and (found.port, found.mac) == (walk.port.number, walk.source)

        return leased

    def _follow_dhcp(self, walk: Walk) -> bool:
        """What a frame that is delivered says of leases; whether it is such a frame."""
        snooped = any(port.snooped and walk.segment in port.segments for port in self.ports.values())
        kind, l3 = (walk.seen.kind, walk.seen.l3) if walk.seen else (walk.ethernet.kind, walk.ethernet.payload)
        if not snooped or walk.refused or walk.unreadable or not leases.is_dhcp(walk.octets, kind, l3, walk.port):
            return False
        if not walk.followed_by_tag:
            says = leases.hear(walk.octets, walk.ethernet, walk.port)
            leases.follow(
                self.neighbours,
                says,
                walk.port,
                walk.source,
                walk.segment,
                walk.now,
                lambda mac: self._holder(walk, mac),
            )
        return True

    def _holder(self, walk: Walk, mac: int) -> Port | None:
        entry = self.fdb.find((walk.segment, mac), walk.now)
        port = self.ports.get(entry.port) if entry else None
        return port if port and port.snooped else None

    def _arrival(self, walk: Walk, known: bool) -> Iterator[str]:
        """Step 11."""
        load = walk.load()
        if not self.rates.take(
            walk.port,
            {"in_bits": load.bits(tagged=bool(walk.ethernet.tags)), "in_packets": load.frames},
            walk.now,
        ):
            yield "rate_limited"
        kind = (
            "broadcast" if walk.destination == BROADCAST else "multicast" if is_group(walk.destination) else "unknown"
        )
        if not known and not self.rates.take(walk.port, {kind: load.frames}, walk.now):
            yield "storm_limited"

    def _answer(self, walk: Walk) -> Outcome | None:
        """Step 12; None: it is not asked for, or not known here and now."""
        l3 = walk.ethernet.payload
        asks = {ARP: arp_question, IPV6: nd_question}.get(walk.ethernet.kind)
        if asks is None or walk.unreadable or walk.port.uplink or walk.followed_by_tag or walk.gso_size:
            return None
        address = asks(walk.octets, l3) if is_group(walk.destination) else None
        known = self.neighbours.find(walk.segment, address, walk.now) if address else None
        to = self.ports[known.port] if known else None
        if known is None or to is None or to is walk.port or not to.can_receive or (walk.port.isolated and to.isolated):
            return None
        mac = known.mac.to_bytes(6, "big")
        message = (arp_answer if walk.ethernet.kind == ARP else nd_answer)(walk.octets, l3, mac)
        vid, load = walk.tci & 0xFFF, Load(1, 14 + len(message))
        if not self._may_have(walk.port, load, vid, walk.now):
            raise Decided("rate_limited")
        answer = addressed(walk.octets, mac, walk.tci, message, walk.octets[l3 - 2 : l3])
        return Outcome("replied", walk.segment, ((walk.port.number, answer),))

    def _may_depart(self, walk: Walk, to: Port, vid: int) -> bool:
        """The rate of step 15, for one copy."""
        return self._may_have(to, walk.load(), vid, walk.now)

    def _may_have(self, to: Port, load: Load, vid: int, now: int) -> bool:
        return self.rates.take(to, {"out_bits": load.bits(tagged=vid != 0), "out_packets": load.frames}, now)

    def _flood(self, walk: Walk) -> Outcome:
        copies, lost, spared = [], [], 0
        message = None
        told = self._follow_dhcp(walk)
        if self.segments[walk.segment].groups and is_group(walk.destination) and not told:
            message = Multicast() if walk.followed_by_tag else hear(walk.octets, walk.ethernet)
            self.groups.hear(message, walk.port, walk.segment, walk.now)
        entry = self.fdb.find((walk.segment, walk.source), walk.now)
        awaits = entry.port if walk.port.uplink and entry is not None and entry.listed else None  # the VM that sent it
        for to in self.ports.values():
            vid = to.vid_of(walk.segment)
            if vid is None or to is walk.port or not to.can_receive or to.number == awaits:
                continue
            if (walk.port.isolated and to.isolated) or walk.port.is_like(to):
                continue
            if walk.followed_by_tag and vid == 0:
                continue
            if message and not self.groups.gets(message, to, walk.segment, walk.now):
                spared += 1
                continue
            copy = walk.copy(vid)
            if self._may_depart(walk, to, vid):
                copies.append((to.number, copy))
                if message:
                    self.groups.asked(message, to, walk.segment, walk.now)
            else:
                lost.append((to.number, len(copy)))
        return Outcome("flooded", walk.segment, tuple(copies), tuple(lost), spared=spared)

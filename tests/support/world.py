"""The switch that the tests of the data plane run frames through.

       blue                      red
        │                         │
        ├── 1 access              ├── 5 access
        ├── 2 access              ├── 6 trunk, VID 120
        ├── 3 access, isolated    ├── 7 trunk, VID 30
        ├── 4 access, isolated    ├── 9 uplink, VID 20
        ├── 6 trunk, VID 110      └── 10 uplink, VID 20
        ├── 7 trunk, native
        ├── 8 access, lists the MAC of VM 8
        ├── 9 uplink, VID 10
        └── 10 uplink, VID 10

A port's number is its handle, its tap and its VM: VM n has the MAC 02:00:00:00:00:n (`frames.mac`). The FDB is
empty but for what port 8 lists; slots are in the order of the numbers.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from support import frames
from support.frames import mac
from support.outcome import TC_ACT_REDIRECT, Counts, Outcome, count, judge
from support.rig import Rig, skb
from support.wires import NO_OFFLOAD, Wires
from vxagent.core.tables import (
    DeviceRow,
    FdbFlag,
    FdbRow,
    MembershipRow,
    NeighbourOrigin,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    SegmentFlag,
    SegmentRow,
    SettingsRow,
    Table,
    address_rows,
    fdb_key,
    member_key,
    neighbour_key,
    slot_key,
    vid_key,
)
from vxagent.datapath import abi, codec
from vxagent.datapath.bpf_prog import Program

BLUE, RED = 1, 2
PORTS = range(1, 11)
UPLINKS = (9, 10)
UNUSED_VID = 99

NANOSECONDS = 1_000_000_000
AGEING_S = 60  # a machine that has just started has no entry that is much older


def blue(*ports: int) -> dict[int, int]:
    """Port → VID of these members of blue."""
    vids = {6: 110, 9: 10, 10: 10}
    return {port: vids.get(port, 0) for port in ports}


def counter(port: int, segment: int) -> int:
    """The index into `traffic`; segment 0 is for frames that belong to none."""
    return port * 3 + segment


def number(address: bytes) -> int:
    """A MAC as the FDB's keys have it."""
    return int.from_bytes(address, "big")


class World:
    """The switch above on empty maps."""

    def __init__(self, rig: Rig, wires: Wires, prelude: Program) -> None:
        self.rig = rig
        self.wires = wires
        self.prelude = prelude
        self.ports: dict[int, PortRow] = {}
        self.segments: dict[int, SegmentRow] = {}
        self.ips: dict[int, list[IPv4Network | IPv6Network]] = {}
        self.set_ageing(AGEING_S)
        for segment in (BLUE, RED):
            self.set_segment(segment, handle=segment, slots=0, mtu=1500, flags=SegmentFlag(0), vni=0, vlan=0)
        for port in (1, 2):
            self.plug(port, {BLUE: 0})
        for port in (3, 4):
            self.plug(port, {BLUE: 0}, PortFlag.ISOLATED)
        self.plug(5, {RED: 0})
        self.plug(6, {BLUE: 110, RED: 120}, PortFlag.TRUNK)
        self.plug(7, {BLUE: 0, RED: 30}, PortFlag.TRUNK)
        self.plug(8, {BLUE: 0}, PortFlag.MAC_LOCKED)
        self.state_static(BLUE, mac(8), 8, FdbFlag.LISTED)
        for port in UPLINKS:
            self.plug(port, {BLUE: 10, RED: 20}, PortFlag.UPLINK | PortFlag.TRUNK)

    # Rows

    def set_ageing(self, seconds: int) -> None:
        """0: never."""
        self.rig.put(Table.SETTINGS, 0, SettingsRow(ageing_ns=seconds * NANOSECONDS))

    def set_segment(self, segment: int, **changes: object) -> None:
        """Change members of segments[segment], or make it of them."""
        row = self.segments.get(segment)
        row = SegmentRow(**changes) if row is None else replace(row, **changes)  # type: ignore[arg-type]  # fields by name
        self.segments[segment] = row
        self.rig.put(Table.SEGMENTS, segment, row)

    def set_port(self, port: int, **changes: object) -> None:
        """Change members of ports[port]."""
        self.ports[port] = replace(self.ports[port], **changes)  # type: ignore[arg-type]  # fields by name
        self.rig.put(Table.PORTS, port, self.ports[port])

    def plug(
        self,
        port: int,
        memberships: Mapping[int, int],
        flags: PortFlag = PortFlag(0),
        *,
        slot: int | None = None,
        ifindex: int | None = None,
    ) -> None:
        """Make a port.

        Args:
            memberships: segment → VID, 0 for untagged.
            slot: of all its memberships; by default the port's number less one.
            ifindex: by default that of the port's tap.
        """
        native = next((segment for segment, vid in memberships.items() if not vid), 0)
        self.ports[port] = PortRow(
            ifindex=self.wires.ifindex[port] if ifindex is None else ifindex,
            flags=flags,
            state=PortMode.UP,
            handle=port,
            segment=native,
            counter=counter(port, native) if native else 0,
            counter_none=counter(port, 0),
            max_macs=1024,
        )
        self.set_port(port)
        for segment, vid in memberships.items():
            self.join(port, segment, vid, port - 1 if slot is None else slot)
        self.rig.put(Table.DEVICES, self.ports[port].ifindex, DeviceRow(ifindex=self.ports[port].ifindex, port=port))

    def join(self, port: int, segment: int, vid: int, slot: int) -> None:
        """Make a port a member of a segment."""
        row = MembershipRow(port=port, segment=segment, vid=vid, slot=slot, counter=counter(port, segment))
        if vid:
            self.rig.put(Table.VIDS, vid_key(port, vid), row)
        self.rig.put(Table.MEMBERS, member_key(port, segment), row)
        self.rig.put(Table.SLOTS, slot_key(segment, slot), row)
        if slot >= self.segments[segment].slots:
            self.set_segment(segment, slots=slot + 1)

    def leave(self, port: int, segment: int) -> None:
        """Take a port out of a segment, as the agent does; FDB entries stay."""
        for table, key in ((Table.SLOTS, slot_key(segment, port - 1)), (Table.MEMBERS, member_key(port, segment))):
            self.rig.maps[table].delete(struct.pack("=I", key))
        if self.ports[port].segment == segment:
            self.set_port(port, segment=0, counter=0)

    def state_static(
        self,
        segment: int,
        address: bytes,
        port: int,
        flags: FdbFlag = FdbFlag(0),
        *,
        cluster: bool = False,
    ) -> None:
        """An entry that somebody stated."""
        origin = Origin.CLUSTER if cluster else Origin.STATIC
        row = FdbRow(port=port, segment=segment, origin=origin, flags=flags)
        self.rig.put(Table.FDB, fdb_key(segment, number(address)), row)

    def learn(self, segment: int, address: bytes, port: int, *, age_s: float = 0.0, key_segment: int = 0) -> None:
        """An entry that the data plane has learned, counted for its port.

        Args:
            age_s: seen so long ago, at most as long as the machine runs.
            key_segment: the segment of the key, where it is not the row's own: an element reused in between.
        """
        seen = max(1, time.monotonic_ns() - int(age_s * NANOSECONDS))
        value = abi.FDB_ENTRY.pack(port=port, segment=segment, origin=Origin.LEARNED, seen_ns=seen)
        key = struct.pack("=Q", fdb_key(key_segment or segment, number(address)))
        self.rig.maps["fdb"].update(key, value)
        self.rig.maps["learning"].update(struct.pack("=I", port), abi.LEARNING.pack(learned=self.learned(port) + 1))
        self.rig.changed()

    def list_ips(self, port: int, *ips: str) -> None:
        """Make a port list these addresses and prefixes, as well as what it lists already."""
        listed = self.ips.setdefault(port, [])
        listed += map(ip_network, ips)
        flags = self.ports[port].flags | PortFlag.IP_LOCKED
        for (table, key), row in address_rows(port, listed).items():
            flags |= PortFlag.PREFIXES if table is Table.PREFIXES else PortFlag(0)
            self.rig.put(table, key, row)
        self.set_port(port, flags=flags)

    def name(
        self,
        port: int,
        *ips: str,
        segment: int = BLUE,
        address: bytes = b"",
        leased_for_s: float | None = None,
        key_segment: int = 0,
    ) -> None:
        """Name the VM of a port for these addresses, and have questions for them looked at in the segment.

        Args:
            address: its MAC; by default `mac(port)`.
            leased_for_s: so long, from now; by default the port lists them.
            key_segment: the segment of the key, where it is not the row's own: an element reused in between.
        """
        leased = leased_for_s is not None
        expires = time.monotonic_ns() + int((leased_for_s or 0) * NANOSECONDS)
        for ip in map(ip_address, ips):
            value = abi.NEIGHBOUR.pack(
                port=port,
                segment=segment,
                family=ip.version,
                origin=NeighbourOrigin.LEASED if leased else NeighbourOrigin.LISTED,
                octets=ip.packed,
                mac=number(address or mac(port)),
                expires_ns=expires if leased else 0,
            )
            key = codec.encode_key(Table.NEIGHBOURS, neighbour_key(key_segment or segment, ip))
            self.rig.maps["neighbours"].update(key, value)
        self.set_segment(segment, flags=self.segments[segment].flags | SegmentFlag.NEIGHBOURS)

    def snoop(self, *ports: int) -> None:
        """Hold these ports to their leases."""
        for port in ports:
            self.set_port(port, flags=self.ports[port].flags | PortFlag.SNOOPED)
        for segment in self.segments:
            self.set_segment(segment, flags=self.segments[segment].flags | SegmentFlag.LEASES)

    # What there is

    def neighbour(self, segment: int, address: str) -> dict[str, int] | None:
        """The members of a row of `neighbours`."""
        key = codec.encode_key(Table.NEIGHBOURS, neighbour_key(segment, ip_address(address)))
        value = self.rig.maps["neighbours"].lookup(key)
        return None if value is None else abi.NEIGHBOUR.unpack(value)

    def neighbours(self) -> int:
        """How many rows there are."""
        return sum(batch.count for batch in self.rig.maps["neighbours"].batches())

    def leases(self, port: int) -> int:
        """How many leases are counted for a port."""
        return self._number("leases", port)

    def refused(self, port: int) -> int:
        """How many leases it could not have."""
        return self._number("leases_refused", port)

    def _number(self, name: str, port: int) -> int:
        (value,) = struct.unpack("=q", self.rig.maps[name].lookup(struct.pack("=I", port)) or b"")
        return int(value)

    def entry(self, segment: int, address: bytes) -> dict[str, int] | None:
        """The members of an FDB entry."""
        value = self.rig.maps["fdb"].lookup(struct.pack("=Q", fdb_key(segment, number(address))))
        return None if value is None else abi.FDB_ENTRY.unpack(value)

    def whereabouts(self, segment: int, address: bytes) -> int | None:
        """The port of an FDB entry."""
        entry = self.entry(segment, address)
        return None if entry is None else entry["port"]

    def learning(self, port: int) -> dict[str, int]:
        """The members of learning[port]."""
        return abi.LEARNING.unpack(self.rig.maps["learning"].lookup(struct.pack("=I", port)) or b"")

    def learned(self, port: int) -> int:
        """Entries made for a port, less those that moved away."""
        return self.learning(port)["learned"]

    def forget(self, port: int, entries: int) -> None:
        """The agent has removed so many of a port's entries."""
        self.rig.maps["forgotten"].update(struct.pack("=I", port), struct.pack("=Q", entries))

    # Frames

    def send(self, port: int, frame: bytes, header: bytes = NO_OFFLOAD) -> Outcome:
        """The VM of a port sends a frame, through the tap, into the program as it is attached."""
        before = self.counts()
        self.wires.write(port, frame, header)
        return self._outcome(before)

    def send_at_xdp(self, port: int, frame: bytes, header: bytes = NO_OFFLOAD) -> Outcome:
        """The same, where XDP may finish it for every port."""
        with self.wires.reached(self.rig.maps["xdp_devices"], self.ports.keys() - set(UPLINKS)):
            return self.send(port, frame, header)

    def run(self, port: int, frame: bytes, *, gso_size: int = 0) -> Outcome:
        """The program runs on a frame whose tags are all in its bytes.

        Args:
            gso_size: payload bytes of each segment that the frame stands for.
        """
        return self._run(self.rig.program("vx_tc"), frame, ifindex=self.ports[port].ifindex, gso_size=gso_size)

    def run_tagged(self, port: int, frame: bytes) -> Outcome:
        """The program runs on a frame whose outermost tag is in skb->vlan_tci, and whose skb->cb is in use."""
        outermost = int.from_bytes(frames.tags_of(frame)[0], "big")
        return self._run(self.prelude, frames.untag(frame), ifindex=self.ports[port].ifindex, mark=outermost)

    def _run(self, program: Program, frame: bytes, **members: int) -> Outcome:
        before = self.counts()
        with self.wires.inside():
            done = program.test_run(frame, skb(**members))
        return self._outcome(before, action=done.verdict, data=done.data)

    def counts(self) -> Counts:
        """Everything that is counted so far."""
        return count(
            self.rig, {(port, segment): counter(port, segment) for port in self.ports for segment in (0, BLUE, RED)}
        )

    def _outcome(self, before: Counts, *, action: int | None = None, data: bytes = b"") -> Outcome:
        """What has come of the one frame since `before`."""
        verdict = judge(before, self.counts())
        # In a test run the last redirect is not carried out: that frame is `data`.
        arrive = {} if action == TC_ACT_REDIRECT else verdict.sent
        arrived = {port: self.wires.read(port, arrive.get(port, (0, 0))[0]) for port in PORTS}
        return Outcome(
            fate=verdict.fate,
            where=verdict.where,
            octets=verdict.octets,
            sent=verdict.sent,
            frames={port: frames for port, frames in arrived.items() if frames},
            action=action,
            data=data,
        )

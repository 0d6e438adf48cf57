"""bpf/abi.h for Python: the same structs, enums and numbers.

tests/unit/test_abi.py compiles abi.h and compares every size, offset and value with the registries at
the end of this file. Enums that the decisions need as well belong to `core.tables` and are only listed.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Any

from vxagent.core.tables import (
    ALL_BITS,
    AWAITING_SLOT,
    LEAVING_SLOT,
    VTEP_SLOT,
    FdbFlag,
    NeighbourOrigin,
    Origin,
    PortFlag,
    PortMode,
    SegmentFlag,
)
from vxagent.model.ids import MAX_LEAVING, MAX_MEMBERS, MAX_VTEPS

LAYOUT = 1  # part of the pin path
CHUNK = 79  # flood slots that one tail call visits
VTEP_CHUNK = 144  # of VTEPs
MAX_LEASES = 64  # of one port
MOVES, MOVES_S, HOLD_S = 5, 10, 60  # a MAC that moves more often in so long is held for so long
FLOW_BITS = 12
EVENT_BURST = 4  # events of each kind that a port may tell at once; then one a second
AUDIENCE_BYTES = 56  # of struct vx_audience, which is the programs' own
COUNTED_VERDICTS = 4  # those that vx_traffic counts; drops have a map of their own


class Verdict(IntEnum):
    """What the data plane decided for a frame."""

    FORWARDED = 0
    FLOODED = 1
    REPLIED = 2
    TO_HOST = 3
    DROPPED = 4


class Reason(IntEnum):
    """Why a frame was dropped. Numbers are stable for ever."""

    NONE = 0
    MALFORMED = 1
    LINK_LOCAL = 2
    VLAN_DENIED = 3
    SRC_INVALID = 4
    SRC_MAC_DENIED = 5
    SRC_MAC_CONFLICT = 6
    SRC_IP_DENIED = 7
    ARP_SPOOF = 8
    ND_SPOOF = 9
    DHCP_SERVER_DENIED = 10
    RA_DENIED = 11
    RATE_LIMITED = 12
    STORM_LIMITED = 13
    HAIRPIN = 14
    ISOLATED = 15
    MTU_EXCEEDED = 16
    EGRESS_FAILED = 17
    UNKNOWN_UNICAST = 18
    STANDBY = 19
    POLICY_DENIED = 20
    NO_DESTINATION = 21
    VTEP_DENIED = 22
    FRAGMENT_DENIED = 23
    LOOP = 24

    @property
    def label(self) -> str:
        """The name that people and metrics see, such as ``vlan_denied``."""
        return self.name.lower()


def reason_label(number: int) -> str:
    """The name of a drop reason; of one that this version does not know, ``reason_<number>``."""
    try:
        return Reason(number).label
    except ValueError:
        return f"reason_{number}"


class DropKind(IntEnum):
    """vx_drop_key.kind: what it is that a drop counter counts."""

    FRAME = 0
    COPY = 1
    SHADOW = 2


class EventType(IntEnum):
    """vx_event.type."""

    MAC_MOVED = 1
    LEARN_LIMITED = 2
    FDB_FULL = 3
    MAC_HELD = 4
    LEASE_REFUSED = 5
    ANNOUNCED = 6


class Prog(IntEnum):
    """Slots of the progs map."""

    FLOOD = 0
    SNOOP = 1
    LEASE = 2
    WALK = 3
    REPLICATE = 4
    TUNNEL = 5


class Layout:
    """A C struct without implicit padding: its members, in order, with their `struct` codes.

    Attributes:
        name: the struct's name in C.
        members: member → code: B H I Q, a repeat count for an array of numbers, ``6s`` for octets.
        struct: packs the members, arrays flattened.
        size: bytes.
    """

    def __init__(self, name: str, **members: str) -> None:
        self.name = name
        self.members = members
        self.struct = struct.Struct("=" + "".join(members.values()))
        self.size = self.struct.size

    def pack(self, **values: int | bytes) -> bytes:
        """The bytes of a struct without arrays of numbers; numbers that are not given are 0.

        Raises:
            TypeError: no such member.
        """
        ordered = [values.pop(member, 0) for member in self.members]
        if values:
            raise TypeError(f"{self.name} has no member {', '.join(values)}")
        return self.struct.pack(*ordered)

    def unpack(self, data: bytes | memoryview) -> dict[str, Any]:
        """Member → value of a struct without arrays of numbers: a number, or octets."""
        return dict(zip(self.members, self.struct.unpack(data), strict=True))

    def offset(self, member: str) -> int:
        """Bytes before `member`."""
        codes = list(self.members.values())[: list(self.members).index(member)]
        return struct.calcsize("=" + "".join(codes))

    def size_of(self, member: str) -> int:
        """Bytes of `member`."""
        return struct.calcsize("=" + self.members[member])


SETTINGS = Layout("vx_settings", ageing_ns="Q", flags="Q")
PORT = Layout(
    "vx_port",
    ifindex="I",
    flags="H",
    state="H",
    handle="H",
    segment="H",
    counter="I",
    counter_none="I",
    max_macs="I",
)
SEGMENT = Layout("vx_segment", handle="H", slots="H", mtu="H", flags="H", vni="I", vlan="H", vteps="H")
DEVICE = Layout("vx_device", ifindex="I", port="H", reserved="H")
MEMBERSHIP = Layout("vx_membership", port="H", segment="H", vid="H", slot="H", counter="I", via="H", token="H")
FDB_ENTRY = Layout("vx_fdb_entry", port="H", via="H", segment="H", origin="B", flags="B", seen_ns="Q")
OVERLAY = Layout("vx_overlay", ifindex="I", port="H", family="H", octets="16s", ttl="I", reserved="I")
VTEP = Layout("vx_vtep", port="H", family="H", reserved="I", octets="16s")
VNI = Layout("vx_vni", vni="I", segment="H", reserved="H")
MOVES_ROW = Layout("vx_moves", key="Q", began_ns="Q", held_ns="Q", count="I", home="H", reserved="H")
ADDRESS_KEY = Layout("vx_address_key", bits="I", port="H", family="H", octets="16s")
ADDRESS = Layout("vx_address", port="H", reserved="H")
FIRST = Layout("vx_first", ipv6="16s", ipv4="4s", reserved="I")
NEIGHBOUR_KEY = Layout("vx_neighbour_key", segment="H", family="H", reserved="I", octets="16s")
NEIGHBOUR = Layout(
    "vx_neighbour",
    port="H",
    segment="H",
    family="H",
    origin="H",
    octets="16s",
    mac="Q",
    expires_ns="Q",
)
GROUP_KEY = Layout("vx_group_key", segment="H", port="H", family="H", reserved="H", octets="16s")
GROUP = Layout("vx_group", segment="H", port="H", family="H", reserved="H", octets="16s", since_ns="Q", expires_ns="Q")
FLOW = Layout(
    "vx_flow",
    destination="Q",
    source="Q",
    epoch="Q",
    until_ns="Q",
    ifindex="I",
    counter="I",
    to_ifindex="I",
    to_counter="I",
    port="H",
    receiver="H",
    segment="H",
    vid="H",
    flags="H",
    to_flags="H",
    mtu="H",
    segment_flags="H",
)
HOP = Layout("vx_hop", until_ns="Q", epoch="Q", macs="2Q")
LISTENING = Layout("vx_listening", since_ns="Q", router_ns="2Q", settled_ns="2Q", joins="Q", refused="Q")
QUERIERS = Layout("vx_queriers", began_ns="2Q", until_ns="2Q")
TRAFFIC = Layout("vx_traffic", packets="4Q", bytes="4Q", tx_packets="Q", tx_bytes="Q", copies="Q")
DROP_KEY = Layout("vx_drop_key", port="H", segment="H", reason="H", kind="H")
DROP_COUNT = Layout("vx_drop_count", packets="Q", bytes="Q")
CARRIED = Layout(
    "vx_carried",
    counter="I",
    reserved="I",
    traffic=f"{TRAFFIC.size // 8}Q",
    drop=f"{DROP_KEY.size // 2}H",
    dropped=f"{DROP_COUNT.size // 8}Q",
)
LEARNING = Layout("vx_learning", learned="Q", limited="Q", moved="Q", full="Q", held="Q")
LIMITS = Layout(
    "vx_limits",
    in_bits="Q",
    in_packets="Q",
    out_bits="Q",
    out_packets="Q",
    broadcast="Q",
    multicast="Q",
    unknown="Q",
    learn="Q",
)
BUCKETS = Layout("vx_buckets", **LIMITS.members)
TELLING = Layout("vx_telling", suppressed="Q", buckets=f"{len(EventType)}Q")
EVENT = Layout("vx_event", time_ns="Q", type="H", port="H", other_port="H", segment="H", mac="6s", reserved="H")

STRUCTS = (
    SETTINGS,
    PORT,
    SEGMENT,
    DEVICE,
    MEMBERSHIP,
    OVERLAY,
    VTEP,
    VNI,
    FDB_ENTRY,
    MOVES_ROW,
    ADDRESS_KEY,
    ADDRESS,
    FIRST,
    NEIGHBOUR_KEY,
    NEIGHBOUR,
    GROUP_KEY,
    GROUP,
    LISTENING,
    FLOW,
    HOP,
    QUERIERS,
    TRAFFIC,
    DROP_KEY,
    DROP_COUNT,
    CARRIED,
    LEARNING,
    LIMITS,
    BUCKETS,
    TELLING,
    EVENT,
)
"""Every struct of abi.h."""

ENUMS: dict[str, tuple[type[IntEnum] | type[IntFlag], str]] = {
    "vx_verdict": (Verdict, "VX_"),
    "vx_reason": (Reason, "VX_"),
    "vx_port_flag": (PortFlag, "VX_PORT_"),
    "vx_port_state": (PortMode, "VX_PORT_"),
    "vx_segment_flag": (SegmentFlag, "VX_SEGMENT_"),
    "vx_fdb_origin": (Origin, "VX_FDB_"),
    "vx_fdb_flag": (FdbFlag, "VX_FDB_"),
    "vx_neighbour_origin": (NeighbourOrigin, "VX_NEIGHBOUR_"),
    "vx_drop_kind": (DropKind, "VX_DROP_"),
    "vx_event_type": (EventType, "VX_EVENT_"),
    "vx_program": (Prog, "VX_PROG_"),
}
"""Every enum of abi.h: its mirror, and what its names have in front in C."""

DEFINES = {
    "VX_LAYOUT": LAYOUT,
    "VX_CHUNK": CHUNK,
    "VX_MAX_LEASES": MAX_LEASES,
    "VX_MAX_MEMBERS": MAX_MEMBERS,
    "VX_VTEP_SLOT": VTEP_SLOT,
    "VX_VTEP_CHUNK": VTEP_CHUNK,
    "VX_MAX_VTEPS": MAX_VTEPS,
    "VX_LEAVING_SLOT": LEAVING_SLOT,
    "VX_MAX_LEAVING": MAX_LEAVING,
    "VX_AWAITING_SLOT": AWAITING_SLOT,
    "VX_MOVES": MOVES,
    "VX_MOVES_S": MOVES_S,
    "VX_HOLD_S": HOLD_S,
    "VX_COUNTED_VERDICTS": COUNTED_VERDICTS,
    "VX_ALL_BITS": ALL_BITS,
    "VX_AUDIENCE_BYTES": AUDIENCE_BYTES,
    "VX_FLOW_BITS": FLOW_BITS,
    "VX_EVENT_BURST": EVENT_BURST,
    "VX_EVENT_KINDS": len(EventType),
}
"""Every number that abi.h defines."""

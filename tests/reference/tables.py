"""Ports and segments as they are set."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network


@dataclass(slots=True, kw_only=True)
class Segment:
    """mtu: bytes of L3. groups: multicast follows IGMP and MLD."""

    mtu: int = 1500
    drop_unknown: bool = False
    groups: bool = False


@dataclass(slots=True, kw_only=True)
class Port:
    """A port or an uplink.

    Attributes:
        uplink: it is one, or a VTEP.
        vtep: it is one; tunnels: the segments in which it is.
        device: it has one that frames can be sent to.
        state: `up`, `down`, `standby`, `holding` or `draining`.
        untagged: the segment of untagged frames, or None; tagged: VID → segment.
        macs, ips: what it lists; nothing: anything.
        limits: name → bits or frames a second, as in `rates.BUCKETS`.
        shadow: its guards, and the limits of what it brings, count what they would drop.
        snooped: it is held to what DHCP servers lease to its VM, and to what it lists.
    """

    number: int
    uplink: bool = False
    vtep: bool = False
    device: bool = True
    state: str = "up"
    untagged: int | None = None
    tagged: dict[int, int] = field(default_factory=dict)
    tunnels: frozenset[int] = frozenset()
    macs: frozenset[int] = frozenset()
    ips: tuple[Network, ...] = ()
    isolated: bool = False
    trusted: bool = False
    max_macs: int = 1024
    limits: dict[str, int] = field(default_factory=dict)
    shadow: bool = False
    snooped: bool = False

    @property
    def segments(self) -> list[int]:
        """Those that it is in."""
        return [*([] if self.untagged is None else [self.untagged]), *self.tagged.values(), *self.tunnels]

    @property
    def locked(self) -> bool:
        """It lists something, so that its VM may not go by other addresses."""
        return bool(self.macs) or self.addresses

    @property
    def addresses(self) -> bool:
        """It may not go by any IP."""
        return bool(self.ips) or self.snooped

    @property
    def inspected(self) -> bool:
        """Guards look into its frames."""
        return not self.uplink and (self.locked or not self.trusted)

    def is_like(self, other: Port) -> bool:
        """Both are uplinks, or both are VTEPs: what one brings is not for the other (split horizon)."""
        return self.uplink and other.uplink and self.vtep == other.vtep

    @property
    def migrating(self) -> bool:
        """Its VM is about to come or to go, and its MAC is here and elsewhere for a while."""
        return self.state in ("standby", "holding", "draining")

    @property
    def can_receive(self) -> bool:
        """It takes frames: a holding port already does, for the VM that is about to resume."""
        return self.device and self.state in ("up", "holding")

    def vid_of(self, segment: int) -> int | None:
        """How a frame of the segment leaves here, 0 for untagged; None: the port is not in it."""
        if segment == self.untagged or segment in self.tunnels:
            return 0
        return next((vid for vid, at in self.tagged.items() if at == segment), None)

    def lists(self, address: bytes) -> bool:
        """Whether an IP source is one of its own."""
        version, value = (4 if len(address) == 4 else 6), int.from_bytes(address, "big")
        return any(
            network.version == version and value & int(network.netmask) == int(network.network_address)
            for network in self.ips
        )

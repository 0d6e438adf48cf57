"""Devices as netlink shows them in the switch's namespace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One network device.

    Attributes:
        ifname, ifindex: its name and number.
        kind: IFLA_INFO_KIND ("tun", "veth", "ifb", "bridge", "vlan" …), "" for hardware.
        up: IFF_UP.
        carrier: somebody is at its other end, as far as it knows. It says nothing about a VM.
        mac: its address, lower-case with colons; "" where it has none.
        mtu: bytes of L3.
        master: name of the bridge or bond that it is enslaved to, or "".
        lower: ifindex of the device under a VLAN device, else 0.
        vid: VID of a VLAN device, else 0.
        peer_elsewhere: a veth whose peer is in another namespace.
        queues: transmit queues.
        txqueuelen: frames that it keeps; of a tap those in each queue that nobody has read yet.
        arp: ARP is on (no IFF_NOARP).
        ipv6: IPv6 is on (disable_ipv6 = 0).
        promisc: IFF_PROMISC was asked for.
        lro: hardware that merges frames that it receives (large receive offload).
        rxvlan: hardware that takes the VLAN tag out of frames that it receives; rxvlan_fixed: always.
        vhost: a tap that the kernel itself (vhost-net) reads and writes for a VM.
        unseen: a tap of which the agent may not see whether vhost-net serves it.
        addresses: IPv4 and global IPv6 addresses that the host has on it.
    """

    ifname: str
    ifindex: int
    kind: str = ""
    up: bool = True
    carrier: bool = True
    mac: str = ""
    mtu: int = 1500
    master: str = ""
    lower: int = 0
    vid: int = 0
    peer_elsewhere: bool = False
    queues: int = 1
    txqueuelen: int = 1000
    arp: bool = True
    ipv6: bool = True
    promisc: bool = False
    lro: bool = False
    rxvlan: bool = False
    rxvlan_fixed: bool = False
    vhost: bool = False
    unseen: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def is_tap(self) -> bool:
        """Frames that go out by it are for a process to read."""
        return self.kind == "tun"

"""Two hosts, and the underlay between them, over which VXLAN goes.

    VM 1   nobody          VM 2   nobody
      ╵      ╵               ╵      ╵
    ┌─┴──────┴──┐          ┌─┴──────┴──┐
    │ 192.0.2.1 ├──────────┤ 192.0.2.2 │
    └───────────┘ underlay └───────────┘

The VMs are behind taps or veths. A contender has one pair of hosts, and one underlay, a veth pair, however many paths
lead over it; each has a VNI of its own.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vxagent.lab.namespaces import Namespace

UNDERLAY = "under0"  # on both hosts
ADDRESSES = ("192.0.2.1", "192.0.2.2")
MACS = ("02:00:00:00:01:01", "02:00:00:00:01:02")
PORT = 4789  # IANA
SOURCE_PORT = 49_152  # of what no switch has chosen
ROOM = 50  # bytes in front of the frame that a packet carries, over IPv4
FIRST_VNI = 5010


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host of a path, and what a contender has to join there.

    Attributes:
        switch: its namespace.
        ports: the devices.
        number: 0 is the sender's host, 1 the other one.
    """

    switch: Namespace
    ports: tuple[str, ...]
    number: int = 0

    @property
    def address(self) -> str:
        """Where its tunnels end."""
        return ADDRESSES[self.number]

    @property
    def remote(self) -> str:
        """Where the other host's do."""
        return ADDRESSES[1 - self.number]

    def outside(self, vni: int) -> bytes:
        """What is the same in front of all frames that it sends: Ethernet, IPv4, UDP and VXLAN (RFC 7348, section 5),
        with lengths and checksums of 0."""
        macs = b"".join(bytes.fromhex(MACS[n].replace(":", "")) for n in (1 - self.number, self.number))
        ends = b"".join(ipaddress.IPv4Address(one).packed for one in (self.address, self.remote))
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0x4000, 64, 17, 0) + ends
        udp = struct.pack("!HHHH", SOURCE_PORT, PORT, 0, 0)
        return macs + b"\x08\x00" + ip + udp + struct.pack("!II", 0x08000000, vni << 8)


def lay(hosts: Sequence[Namespace], mtu: int) -> None:
    """Lay the underlay between two hosts, with room for frames of that MTU."""
    one, two = hosts
    there = f"peer name {UNDERLAY} address {MACS[1]} mtu {mtu + ROOM} netns {two.name}"
    one.ip(*f"link add {UNDERLAY} address {MACS[0]} mtu {mtu + ROOM} type veth {there}".split())
    for host, address in zip(hosts, ADDRESSES, strict=True):
        host.ip_batch((f"address add {address}/24 dev {UNDERLAY}", f"link set {UNDERLAY} up"))
    for host in hosts:
        host.wait_running(UNDERLAY)

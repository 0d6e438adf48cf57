"""Which hosts a simulated cluster has, who of them has which segment, and which ports: all of it by numbers.

Each host has some segments, each segment some 50 hosts. Which, is drawn anew for each of a host's segments: two hosts
that share one do not share the next, so a host has many peers and no two have the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from random import Random

from vxagent.model.port import Port
from vxagent.model.segment import Segment

FIRST_VNI = 100_000
FIRST_VTEP = int(ip_address("198.18.0.1"))  # RFC 2544: nobody's
FIRST_IP, FIRST_NEW_IP = int(ip_address("10.0.0.1")), int(ip_address("10.128.0.1"))
NEW = "new-"  # ids of ports that come while it is measured begin with it
NEW_EACH = 4096  # of a host's, before MACs and addresses are given again


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A cluster to be simulated.

    Attributes:
        hosts: how many.
        ports: of each host; they take its segments in turn.
        segments: of each host.
        share: hosts that have the same segment, at least.
    """

    hosts: int
    ports: int
    segments: int = 5
    share: int = 50

    @property
    def all_ports(self) -> int:
        """Of all hosts."""
        return self.hosts * self.ports

    def name(self, host: int) -> str:
        """Of a host."""
        return f"sim{host}"

    def vtep(self, host: int) -> str:
        """Of a host."""
        return str(ip_address(FIRST_VTEP + host))

    @cached_property
    def members(self) -> dict[str, tuple[int, ...]]:
        """The hosts of each segment."""
        groups = max(1, self.hosts // self.share)
        found: dict[str, tuple[int, ...]] = {}
        for layer in range(self.segments):
            order = list(range(self.hosts))
            Random(layer).shuffle(order)
            found |= {f"s{layer}-{group}": tuple(sorted(order[group::groups])) for group in range(groups)}
        return found

    @cached_property
    def _segments(self) -> tuple[tuple[str, ...], ...]:
        there: list[list[str]] = [[] for _ in range(self.hosts)]
        for name, hosts in self.members.items():
            for host in hosts:
                there[host].append(name)
        return tuple(tuple(names) for names in there)

    def segments_of(self, host: int) -> tuple[str, ...]:
        """Names of a host's segments."""
        return self._segments[host]

    def segment(self, name: str) -> Segment:
        """As each host that has it is asked to."""
        layer, group = name[1:].split("-")
        return Segment(name=name, tenant="acme", vni=FIRST_VNI + 1000 * int(layer) + int(group), mtu=1450)

    def ports_of(self, host: int) -> Iterator[Port]:
        """All that a host has from its start."""
        names = self.segments_of(host)
        for number in range(self.ports):
            octets = (2, *divmod(host, 256), *divmod(number, 256), 0)
            yield Port(
                id=f"vm{host}-{number}",
                ifname=f"tap{number}",
                segment=names[number % len(names)],
                macs=(":".join(f"{octet:02x}" for octet in octets),),
                ips=(str(ip_address(FIRST_IP + host * self.ports + number)),),
            )

    def ports_in(self, segment: str) -> Iterator[tuple[str, Port]]:
        """What its hosts are to know of it: owners and ports."""
        for host in self.members[segment]:
            for port in self.ports_of(host):
                if port.segment == segment:
                    yield self.name(host), port

    def count_in(self, segment: str) -> int:
        """How many those are."""
        return sum(self._count_of(host, segment) for host in self.members[segment])

    def _count_of(self, host: int, segment: str) -> int:
        names = self.segments_of(host)
        return len(range(names.index(segment), self.ports, len(names)))

    def new_port(self, host: int, number: int, segment: str, due_us: int) -> Port:
        """One that comes to a host later; its id says when it was due, by the clock that all processes share."""
        number %= NEW_EACH
        octets = (6, *divmod(host, 256), *divmod(number, 256), 0)
        return Port(
            id=f"{NEW}{due_us}-{host}-{number}",
            ifname=f"new{number}",
            segment=segment,
            macs=(":".join(f"{octet:02x}" for octet in octets),),
            ips=(str(ip_address(FIRST_NEW_IP + host * NEW_EACH + number)),),
        )


def due_us(port: str) -> int | None:
    """When a port of `new_port` was due; None: it is another one."""
    return int(port.split("-")[1]) if port.startswith(NEW) else None

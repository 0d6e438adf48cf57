"""The leak test: tenants that have everything in common but the switch, and a switch that is never left alone.

    tenant a             tenant b             tenant c             fabric
    a1 a2  (segments)    b1 b2                c1 c2                VLANs 10 11, 20 21, 30 31
    2 veths, 2 taps      2 veths, 2 taps      2 veths, 2 taps      behind one uplink
    a trunk: VID 20 is a1, 30 is a2

VM n of each tenant has the same MAC and addresses. Every frame carries its tenant; none may turn up at a port of
another one, under another one's VLAN, or in the host's stack. Meanwhile ports come, go, change their locks, limits,
segments and tenants, entries are flushed, programs swapped, and agents killed.
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support import frames
from support.lan import Lan
from support.leak_frames import VMS, Sent
from support.leak_traffic import HostStack, Station, Traffic
from support.offload import offloading
from vxagent.lab.fabric import TRUNK
from vxagent.lab.namespaces import Namespace
from vxagent.lab.sniffer import open_packet_socket
from vxagent.lab.tap import open_tap
from vxagent.lab.vm import NIC
from vxagent.lab.waiting import wait_until
from vxagent_cli.client import AgentSaysNo

VLANS = {"a1": 10, "a2": 11, "b1": 20, "b2": 21, "c1": 30, "c2": 31}
TENANTS = ("a", "b", "c")
TRUNK_VIDS = (
    {"a1": 20, "a2": 30},
    {"a1": 30, "a2": 20},
)  # of its own tenant's segments; on the uplink they are others'
UPLINK = "up0"
FLOOR = 40  # frames that must arrive at each port, and from each tenant in the fabric, or the test has seen nothing
LAST = Sent(data=frames.ethernet(frames.BROADCAST, frames.MULTICAST))  # from a group: dropped for `src_invalid`
PLAIN = {
    "mac": [], "ip": [], "isolated": False, "trusted": False, "max_macs": 1024, "learn_rate": 1000, "enforce": "on",
    "dhcp_snoop": False, "rate_in": None, "rate_out": None,
    "storm_broadcast": None, "storm_multicast": None, "storm_unknown": None,
}  # fmt: skip


@dataclass(kw_only=True)
class Leak:
    """A running leak test.

    Attributes:
        chance: decides what is changed.
        done: kind of change → how often; `refused` counts what the agent did not want.
    """

    lan: Lan
    chance: random.Random
    traffic: Traffic
    done: Counter[str]

    @property
    def ports(self) -> list[Station]:
        """The stations that are ports, the trunk last."""
        return list(self.traffic.stations[:-1])

    def plug_in(self) -> None:
        """Attach all ports, and forget what the host said to the devices before they were ports."""
        for station in self.ports:
            self._attach(station)
        self.traffic.between(self.traffic.forget)
        for station in self.traffic.stations:
            station.muted = False

    def change(self, count: int) -> None:
        """Change that many things; each kind once, in a random order, before any comes twice."""
        kinds: list[Callable[[], None]] = []
        for _ in range(count):
            if not kinds:
                kinds = [
                    *(self.set_port,) * 12,
                    *(self.move, self.flush, self.replug, self.rehome) * 3,
                    *(self.state, self.set_segment, self.swap_trunk, self.reload, self.replug_uplink, self.die),
                ]
                self.chance.shuffle(kinds)
            kind = kinds.pop()
            try:
                kind()
            except AgentSaysNo:
                self.done["refused"] += 1
            else:
                self.done[kind.__name__] += 1

    def settle(self) -> None:
        """Give all ports what they need to hear something, and wait until each has heard enough."""
        for station in self.ports:
            self._set(station, **PLAIN)
        for segment in VLANS:
            self.lan.client.change(
                "PATCH", "v1", "segments", segment, body={"unknown_unicast": "flood", "multicast_snooping": False}
            )
        self.lan.client.change("POST", "v1", "fdb", "flush", body={})
        fabric = self.traffic.stations[-1]

        def enough() -> bool:
            return all(port.heard[port.tenant] >= FLOOR for port in self.ports) and all(
                fabric.heard[tenant] >= FLOOR for tenant in TENANTS
            )

        wait_until(enough, within=20, what=f"every port hears its tenant: {self.heard()}")

    def heard(self) -> dict[str, dict[str, int]]:
        """Port → tenant → frames."""
        return {station.name: dict(station.heard) for station in self.traffic.stations}

    # What may be changed

    def set_port(self) -> None:
        """Locks, limits and the like of a port."""
        station, chance = self.chance.choice(self.ports), self.chance
        mac, ip = frames.mac(station.number).hex(":"), f"10.0.0.{station.number}"
        options: list[dict[str, object]] = [
            {"mac": [mac]},
            {"ip": [ip, "2001:db8::/64"]},
            {"mac": [mac], "ip": [ip]},
            {"isolated": chance.random() < 0.5},
            {"trusted": chance.random() < 0.5},
            {"max_macs": chance.choice((0, 1, 1024))},
            {"learn_rate": chance.choice((0, 1, 1000))},
            {"rate_in": "10Mbit", "storm_broadcast": chance.choice((10, 1000))},
            {"rate_out": "10Mbit,1kpps"},
            {"dhcp_snoop": chance.random() < 0.5},
            {"storm_unknown": 100, "storm_multicast": 100},
            {"enforce": chance.choice(("on", "shadow"))},
            PLAIN,
            PLAIN,
        ]
        self._set(station, **chance.choice(options))

    def move(self) -> None:
        """To the other segment of its tenant."""
        station = self.chance.choice(self.ports[:-1])
        self._set(station, segment=self._segment(station.tenant))

    def flush(self) -> None:
        """All, what a segment or what a port has learned."""
        choices: tuple[dict[str, str], ...] = ({}, {"segment": self.chance.choice(list(VLANS))}, {"port": UPLINK})
        self.lan.client.change("POST", "v1", "fdb", "flush", body=self.chance.choice(choices))

    def replug(self) -> None:
        """Out, and in again: it may get another port's number."""
        some = self.chance.sample(self.ports, 2)
        for station in some:
            self._detach(station)
        for station in some:
            self._attach(station)
            station.muted = False

    def rehome(self) -> None:
        """A device goes over to another tenant, once all that it has sent has a verdict, and with nothing that it has
        got still to be judged."""
        station = self.chance.choice(self.ports[:-1])
        self.traffic.between(lambda: setattr(station, "muted", True))
        before = self._counted(station)
        self.traffic.between(lambda: station.send(LAST))
        wait_until(lambda: self._counted(station) > before, what=f"the last frame of {station.name} has a verdict")
        self._detach(station)
        self.traffic.between(lambda: self.traffic.listen(station))
        station.tenant = self.chance.choice([tenant for tenant in TENANTS if tenant != station.tenant])
        self._attach(station)
        station.muted = False

    def state(self) -> None:
        """A static entry comes and goes."""
        station = self.chance.choice(self.ports[:-1])
        segment = self.lan.show(station.name)["segments"][0]["segment"]
        entry = {"segment": segment, "mac": frames.mac(self.chance.randint(1, VMS)).hex(":"), "port": station.name}
        self.lan.client.change("POST", "v1", "fdb", body=entry)
        self.lan.client.change("DELETE", "v1", "fdb", segment, entry["mac"])

    def set_segment(self) -> None:
        """What becomes of unknown unicast and of multicast."""
        segment, on = self.chance.choice(list(VLANS)), self.chance.random() < 0.5
        body = self.chance.choice(({"unknown_unicast": "flood" if on else "drop"}, {"multicast_snooping": on}))
        self.lan.client.change("PATCH", "v1", "segments", segment, body=body)

    def swap_trunk(self) -> None:
        """Its VIDs trade places."""
        self._set(self.ports[-1], trunk=self._trunk())

    def reload(self) -> None:
        """New programs."""
        self.lan.client.change("POST", "v1", "reload")

    def replug_uplink(self) -> None:
        """Out, and in again."""
        self.lan.client.change("DELETE", "v1", "uplinks", UPLINK)
        self.lan.client.change("POST", "v1", "uplinks", body={"ifname": UPLINK})

    def die(self) -> None:
        """kill -9, and the next agent."""
        self.lan.agent.kill()
        self.lan.agent.up()

    def _set(self, station: Station, **options: object) -> None:
        self.lan.client.change("PATCH", "v1", "ports", station.name, body=options)

    def _counted(self, station: Station) -> int:
        """How many frames it has brought of which `LAST` is the only one."""
        return self.lan.drops(station.name).get("src_invalid", 0)

    def _segment(self, tenant: str) -> str:
        return f"{tenant}{self.chance.choice('12')}"

    def _trunk(self) -> list[str]:
        return [f"{segment}:{vid}" for segment, vid in self.chance.choice(TRUNK_VIDS).items()]

    def _detach(self, station: Station) -> None:
        self.traffic.between(lambda: setattr(station, "muted", True))
        self.lan.client.change("DELETE", "v1", "ports", station.name)

    def _attach(self, station: Station) -> None:
        where = {"trunk": self._trunk()} if station.trunk else {"segment": self._segment(station.tenant)}
        self.lan.attach(station.name, **where)


@contextmanager
def leaking(lan: Lan, seed: str) -> Iterator[Leak]:
    """The topology above with traffic in it; `seed` decides what is sent and changed."""
    for segment, vid in VLANS.items():
        lan.segment(segment, tenant=segment[0], vlan=vid)
    fabric = lan.uplink(UPLINK)
    with ExitStack() as stack:
        stations = [_station(lan, stack, tenant, number) for tenant in TENANTS for number in range(1, VMS + 1)]
        stations.append(_station(lan, stack, "a", VMS + 1, trunk=True))
        stations.append(
            Station(name=UPLINK, number=VMS + 2, tenant="", wire=_packet_socket(stack, fabric.namespace, TRUNK))
        )
        own = frozenset(bytes.fromhex(lan.device(s.name)["address"].replace(":", "")) for s in stations[:-1])
        host = HostStack(lan.switch)
        stack.callback(host.close)
        vids = (*VLANS.values(), *TRUNK_VIDS[0].values())
        tenant_of = {vid: segment[0] for segment, vid in VLANS.items()}
        traffic = Traffic(random.Random(f"{seed} traffic"), stations, tenant_of, vids, host, own)
        leak = Leak(lan=lan, chance=random.Random(f"{seed} changes"), traffic=traffic, done=Counter())
        with traffic:
            leak.plug_in()
            yield leak


def _station(lan: Lan, stack: ExitStack, tenant: str, number: int, *, trunk: bool = False) -> Station:
    """A VM's device: odd ones are veths, even ones taps."""
    name = f"{tenant}{'v' if number % 2 else 't'}{number}"
    if number % 2:
        vm = lan.world.veth_vm(lan.switch, name, mac=frames.mac(number).hex(":"))
        raw = _packet_socket(stack, vm.namespace, NIC)
        stack.enter_context(offloading(vm.namespace, NIC))
        return Station(name=name, number=number, tenant=tenant, wire=raw, trunk=trunk, offloads=True)
    tap = open_tap(lan.switch, name)
    stack.callback(os.close, tap)
    lan.switch.ip("link", "set", name, "up")
    return Station(name=name, number=number, tenant=tenant, wire=tap, trunk=trunk)


def _packet_socket(stack: ExitStack, namespace: Namespace, ifname: str) -> socket.socket:
    raw = stack.enter_context(open_packet_socket(namespace, ifname))
    raw.setblocking(False)
    return raw

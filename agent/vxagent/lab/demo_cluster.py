"""Three hosts and a live migration, told in a minute: `make demo-cluster`.

    hv1                    hv2                    hv3
    blue1  red1  moving →  blue2  red2            blue3  red3      the same MACs and addresses in blue and in red
    ┌─┴──────┴──────┴─┐    ┌─┴──────┴────────┐    ┌─┴──────┴─┐
    │    vxagent      │    │    vxagent      │    │ vxagent  │     acme's segment blue, VNI 5010
    └───────┬─────────┘    └───────┬─────────┘    └────┬─────┘     umbrella's segment red, VNI 5020
            └──── VXLAN ───────────┴───────────────────┴──────── etcd

Exits 0 when everything was as expected, 1 when something was not, and leaves nothing behind either way.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import datetime

from vxagent.lab.etcd import binary
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, IPV4, Frame, ethernet
from vxagent.lab.hosts import Host, Hosts
from vxagent.lab.moving import MovingVm
from vxagent.lab.numbered import Heard, NumberedStream
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.report import Report
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.stage import listening, perform, reached
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, Endpoint, VethVm
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

MOVING = "moving"
PER_SECOND = 1000
BEFORE = 300  # datagrams that have arrived before anything is done, and again behind it
VXLAN_PORT = (4789).to_bytes(2, "big")


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One tenant's part of the lab.

    Attributes:
        vms: the first of hv1, the second of hv2 …
        own: an address that only its second VM has.
    """

    name: str
    segment: str
    vni: int
    own: str
    vms: list[VethVm] = field(default_factory=list)


def mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def address(number: int) -> str:
    return f"10.0.0.{number}"


def populate(world: World, hosts: Hosts, tenant: Tenant) -> None:
    """A VM on each host; both tenants get the same MACs and addresses."""
    for number, host in enumerate(hosts.all, start=1):
        port = f"{tenant.segment}{number}"
        tenant.vms.append(world.veth_vm(host.namespace, port, mac=mac(number), address=address(number)))
    tenant.vms[1].add_address(tenant.own)


def start(report: Report, hosts: Hosts, tenants: list[Tenant], moving: MovingVm) -> None:
    """The agents, the segments, and the ports, each locked to its MAC and addresses."""
    begun = time.monotonic()
    for host in hosts.all:
        host.up()
    report.finding(True, f"{len(hosts.all)} agents forward and have found the engine after {since(begun):.1f} s")
    for number, host in enumerate(hosts.all, start=1):
        for tenant in tenants:
            words = ("--tenant", tenant.name, "--vni", str(tenant.vni))
            host.agent.cli("segment", "add", tenant.segment, *words)
            vm = tenant.vms[number - 1]
            own = ("--ip", tenant.own) if number == 2 else ()
            locks = ("--mac", vm.mac, "--ip", vm.address, *own)
            host.agent.cli("port", "attach", vm.port, "--segment", tenant.segment, *locks)
    locks = ("--mac", moving.mac, "--ip", moving.address)
    hosts.all[0].agent.cli("port", "attach", moving.port, "--segment", tenants[0].segment, *locks)
    wait_until(lambda: all_know(hosts), what="every host knows of every port")
    report.text(hosts.all[0].agent.cli("host", "list").stdout)
    report.text(hosts.all[0].agent.cli("binding", "list").stdout)


def all_know(hosts: Hosts) -> bool:
    """Each host's FDB has each MAC of both tenants."""
    return all(len(host.agent.json("fdb", "list")) == 7 for host in hosts.all)


def show_within(report: Report, tenant: Tenant, other: Tenant) -> None:
    """Each VM reaches those on other hosts, and the other tenant hears nothing of it."""
    with listening(other.vms) as others:
        for source, target in ((0, 1), (1, 2), (2, 0)):
            one, two = tenant.vms[source], tenant.vms[target]
            report.finding(*reached(one, two, f"{one.port} on hv{source + 1} → {two.port} on hv{target + 1}"))
        overheard = sum(len(sniffer.frames()) for sniffer in others)
    report.finding(not overheard, f"{other.name}'s VMs meanwhile saw {overheard} frames")


def show_across(report: Report, tenant: Tenant, other: Tenant) -> None:
    """Whatever a VM sends stays with its tenant."""
    one = tenant.vms[0]
    with listening(tenant.vms[1:]) as own, listening(other.vms) as others:
        pings = ping(one.namespace, other.own, patience=0.3)
        text = f"{one.port} → {other.own}, which only {other.vms[1].port} has: {pings.received}/{pings.sent} answered"
        report.finding(pings.received == 0, text)
        word = f"to everybody from {one.port}".encode()
        send_frames(one.namespace, NIC, ethernet(BROADCAST, one.mac, EXPERIMENTAL, word))

        def is_it(frame: Frame) -> bool:
            return word in frame.payload

        for sniffer in own:
            sniffer.wait_for(is_it)
        overheard = sum(len(sniffer.frames()) for sniffer in others)
        text = f"a broadcast from {one.port} reached the 2 others of {tenant.name}"
        report.finding(not overheard, f"{text}; {other.name} saw {overheard} frames")


def show_underlay(report: Report, wire: Sniffer, tenants: list[Tenant]) -> None:
    """What hv1 has sent and got between hosts, by VNI."""
    counts = {tenant.vni: 0 for tenant in tenants}
    for frame in wire.frames(is_vxlan):
        vni = int.from_bytes(frame.payload[32:35], "big")  # RFC 7348, section 5, behind IPv4 and UDP
        counts[vni] = counts.get(vni, 0) + 1
    told = ", ".join(f"{count} in VNI {vni}" for vni, count in counts.items())
    report.finding(len(counts) == len(tenants) and all(counts.values()), f"VXLAN packets to hv1: {told}")


def is_vxlan(frame: Frame) -> bool:
    """Of a frame of the underlay."""
    return frame.ethertype == IPV4 and frame.payload[9] == 17 and frame.payload[22:24] == VXLAN_PORT


def show_migration(report: Report, hosts: Hosts, vm: MovingVm, peer: Endpoint) -> None:
    """From hv1 to hv2, while a VM on hv3 sends numbered datagrams to it and pings it."""
    source, target, _ = hosts.all
    pinger = Pinger(peer.namespace, vm.address).start()
    stream = NumberedStream(peer.namespace, vm.namespace, vm.address, per_second=PER_SECOND)
    wait_until(lambda: stream.arrived > BEFORE, what="datagrams arrive")
    vm.await_at(target.namespace)
    step(report, target, "prepare", vm.port, "--ifname", vm.port)
    step(report, source, "switchover", vm.port)
    vm.stand_still()
    moved = time.time()
    vm.go_on()
    vm.leave()
    report.text(f"moving goes on behind {target.name}, and its hypervisor says so by RARP: nobody calls `activate`")
    wait_until(lambda: owner(target, vm.port) == target.name, what=f"{vm.port} is {target.name}'s")
    arrived = stream.arrived
    wait_until(lambda: stream.arrived > arrived + BEFORE, what="datagrams arrive")
    heard, pings = stream.end(), pinger.stop()
    header, *lines = target.agent.cli("binding", "list").stdout.splitlines()
    report.text("\n".join([header, *(line for line in lines if line.startswith(vm.port))]))
    tell_blackout(report, heard, moved, source, target)
    counts = f"{heard.lost} lost, {heard.duplicated} duplicated, {heard.reordered} out of order"
    good = not (heard.lost or heard.duplicated or heard.reordered)
    report.finding(good, f"of {heard.sent} datagrams, {PER_SECOND} a second, {counts}")
    report.finding(not pings.lost, f"{pings.received}/{pings.sent} pings of {vm.address} answered")


def step(report: Report, host: Host, what: str, *words: str) -> None:
    """One command of the migration, and how long it took."""
    begun = time.monotonic()
    said = host.agent.cli("migrate", what, *words).stdout.strip()
    report.text(f"{host.name}: vxagent migrate {what} {' '.join(words)}   {said} ({since(begun) * 1000:.0f} ms)")


def tell_blackout(report: Report, heard: Heard, moved: float, source: Host, target: Host) -> None:
    """For how long the VM got nothing."""
    last, first = heard.around(moved)
    clock = [datetime.fromtimestamp(at).strftime("%H:%M:%S.%f") for at in (last, first)]
    text = f"last datagram behind {source.name} at {clock[0]}, first behind {target.name} at {clock[1]}"
    report.finding(True, f"{text}: a blackout of {(first - last) * 1000:.1f} ms")


def owner(host: Host, port: str) -> str:
    """On which host a port runs, as a host knows it."""
    return next(str(row["owner"]) for row in host.agent.json("binding", "list") if row["port"] == port)


def since(begun: float) -> float:
    return time.monotonic() - begun


def play(report: Report, world: World) -> None:
    """All of it, in order."""
    hosts = Hosts(world)
    acme = Tenant(name="acme", segment="blue", vni=5010, own=address(51))
    umbrella = Tenant(name="umbrella", segment="red", vni=5020, own=address(52))
    for tenant in (acme, umbrella):
        populate(world, hosts, tenant)
    moving = world.moving_vm(hosts.all[0].namespace, MOVING, mac=mac(9), address=address(9))
    wire = world.cleanup.enter_context(Sniffer(hosts.all[0].namespace, "u0"))

    report.heading("Three hosts with one engine, two tenants with the same MACs and addresses")
    start(report, hosts, [acme, umbrella], moving)
    wire.forget()
    for tenant, other in ((acme, umbrella), (umbrella, acme)):
        report.heading(f"Within {tenant.name} (segment {tenant.segment}), between hosts: everything is answered")
        show_within(report, tenant, other)
    report.heading("Across tenants: nothing")
    show_across(report, acme, umbrella)
    show_across(report, umbrella, acme)
    show_underlay(report, wire, [acme, umbrella])
    wire.close()
    report.heading("A live migration from hv1 to hv2, under a stream from hv3")
    show_migration(report, hosts, moving, acme.vms[2])
    report.heading("vxagent fdb list, on hv3")
    report.text(hosts.all[2].agent.cli("fdb", "list").stdout)


if __name__ == "__main__":
    sys.exit(perform(play, needs=[str(binary())]))

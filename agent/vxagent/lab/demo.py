"""The switch at work, told in a minute: `make demo`.

    tenant acme                      tenant umbrella
    blue1   blue2   blue3            red1    red2    red3        the same MACs and addresses on both sides
    veth    veth    tap              veth    veth    tap
    ┌─┴───────┴───────┴────────────────┴───────┴───────┴──┐
    │  segment blue, VLAN 10      segment red, VLAN 20    │      vxagent
    └──────────────────────────┬──────────────────────────┘
                              up0      trunk, VLANs 10 and 20
                    blue-host ─┴─ red-host

Exits 0 when everything was as expected, 1 when something was not, and leaves nothing behind either way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vxagent.lab.agent import Agent
from vxagent.lab.bridge import Bridge
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, LLDP, LLDP_MAC, Frame, ethernet
from vxagent.lab.namespaces import Namespace
from vxagent.lab.ping import ping
from vxagent.lab.report import Report
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.stage import listening, perform, reached
from vxagent.lab.traffic import iperf3, send_frames
from vxagent.lab.vm import NIC, Endpoint, TapVm, VethVm
from vxagent.lab.world import World

UPLINK = "up0"
IPERF_S = 2.0
STRANGER = "02:00:00:00:00:66"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One tenant's part of the lab.

    Attributes:
        segment, tenant, vid: what it is called.
        vms: two on veth, one on a tap.
        host: its host in the physical network.
        own: an address that only the second VM of this tenant has.
    """

    segment: str
    tenant: str
    vid: int
    own: str
    vms: list[VethVm | TapVm] = field(default_factory=list)
    host: Endpoint

    @property
    def everybody(self) -> list[Endpoint]:
        """VMs and host."""
        return [*self.vms, self.host]


def mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def address(number: int) -> str:
    return f"10.0.0.{number}"


def build_side(world: World, switch: Namespace, fabric: Fabric, segment: str, tenant: str, vid: int) -> Side:
    """Both tenants get the same MACs and addresses: VMs 1 to 3 here, 4 in the physical network."""
    side = Side(
        segment=segment,
        tenant=tenant,
        vid=vid,
        own=address(vid),
        host=fabric.host(vid, mac=mac(4), address=address(4)),
    )
    kinds: list[Callable[..., VethVm | TapVm]] = [world.veth_vm, world.veth_vm, world.tap_vm]
    for number, make in enumerate(kinds, start=1):
        side.vms.append(make(switch, f"{segment}{number}", mac=mac(number), address=address(number)))
    side.vms[1].add_address(side.own)
    return side


def start(report: Report, agent: Agent, sides: list[Side]) -> None:
    """The agent, the segments, the uplink and the ports; the first port of each tenant is locked to its MAC."""
    begun = time.monotonic()
    agent.up()
    report.finding(True, f"vxagent up: forwards after {time.monotonic() - begun:.1f} s")
    for side in sides:
        agent.cli("segment", "add", side.segment, "--tenant", side.tenant, "--vlan", str(side.vid))
    agent.cli("uplink", "add", UPLINK)
    for side in sides:
        for vm in side.vms:
            lock = ("--mac", vm.mac) if vm is side.vms[0] else ()
            agent.cli("port", "attach", vm.port, "--segment", side.segment, *lock)
    states = [row["state"] for row in agent.json("port", "list") + agent.json("uplink", "list")]
    report.finding(states == ["up"] * 7, "6 ports and 1 uplink attached")
    report.text(agent.cli("port", "list").stdout)


def show_within(report: Report, side: Side, other: Side) -> None:
    """Each VM reaches those of its tenant, and the other tenant hears nothing of it."""
    with listening(other.everybody) as others:
        for source, target in ((0, 1), (1, 2), (2, 0)):
            one, two = side.vms[source], side.vms[target]
            report.finding(*reached(one, two, f"{one.port} → {two.port}"))
        report.finding(*reached(side.vms[0], side.host, f"{side.vms[0].port} → host in VLAN {side.vid}"))
        report.finding(*reached(side.host, side.vms[2], f"host in VLAN {side.vid} → {side.vms[2].port}"))
        overheard = sum(len(sniffer.frames()) for sniffer in others)
    report.finding(not overheard, f"{other.tenant}'s VMs and host meanwhile saw {overheard} frames")


def show_across(report: Report, side: Side, other: Side) -> None:
    """Whatever a VM sends stays with its tenant."""
    one = side.vms[0]
    with listening(side.everybody) as own, listening(other.everybody) as others:
        pings = ping(one.namespace, other.own, patience=0.3)
        text = f"{one.port} → {other.own}, which only {other.vms[1].port} has: {pings.received}/{pings.sent} answered"
        report.finding(pings.received == 0, text)

        word = f"to everybody from {one.port}".encode()
        send_frames(one.namespace, NIC, ethernet(BROADCAST, one.mac, EXPERIMENTAL, word))

        def is_it(frame: Frame) -> bool:
            return word in frame.payload

        for sniffer in own[1:]:
            sniffer.wait_for(is_it)
        text = f"a broadcast from {one.port} reached the {len(own) - 1} others of {side.tenant}"
        overheard = sum(len(sniffer.frames()) for sniffer in others)
        report.finding(not overheard, f"{text}; {other.tenant} saw {overheard} frames")


def show_uplink(report: Report, wire: Sniffer, sides: list[Side]) -> None:
    """What the switch sent into the physical network."""
    frames = wire.frames()
    for side in sides:
        for kind in ("ARP", "echo request", "TCP"):
            report.text("\n".join(str(f) for f in frames if f.vid == side.vid and kind in str(f)).split("\n")[0])
    counts = {side.vid: sum(frame.vid == side.vid for frame in frames) for side in sides}
    others = [frame for frame in frames if frame.vid not in counts]
    told = ", ".join(f"{count} in VLAN {vid}" for vid, count in counts.items())
    report.finding(all(counts.values()) and not others, f"{told}, {len(others)} others")
    report.text("\n".join(map(str, others)))


def show_fdb(report: Report, agent: Agent, sides: list[Side]) -> None:
    """The same MACs, once for each tenant."""
    header, *entries = agent.cli("fdb", "list").stdout.splitlines()
    report.text("\n".join([header, *sorted(entries)]))
    found = {(row["segment"], row["mac"]): row["port"] for row in agent.json("fdb", "list")}
    expected = {(side.segment, vm.mac): vm.port for side in sides for vm in side.vms}
    expected |= {(side.segment, side.host.mac): UPLINK for side in sides}
    report.finding(found == expected, f"{len(found)} entries: 4 MACs, each at another place for each tenant")


def show_drops(report: Report, agent: Agent, side: Side) -> None:
    """Frames that a VM should not send, each counted under its reason."""
    locked, open_port = side.vms[0], side.vms[1]
    provoked = [
        (locked, "src_mac_denied", "a foreign source MAC", ethernet(BROADCAST, STRANGER, EXPERIMENTAL, b"")),
        (
            open_port,
            "vlan_denied",
            "a VLAN tag on an access port",
            ethernet(BROADCAST, open_port.mac, EXPERIMENTAL, b"", tags=((0x8100, 20),)),
        ),
        (open_port, "link_local", "LLDP", ethernet(LLDP_MAC, open_port.mac, LLDP, b"\0\0")),
    ]
    for vm, reason, what, frame in provoked:
        before = agent.drops(vm.port).get(reason, 0)
        send_frames(vm.namespace, NIC, frame, frame)
        after = agent.drops(vm.port).get(reason, 0)
        report.finding(after == before + 2, f"{vm.port} sends {what} twice: {reason} + {after - before}")
    report.text(agent.cli("drops").stdout)


def show_speed(report: Report, world: World, side: Side) -> None:
    """The same kind of pair at the switch and at a Linux bridge."""
    namespace = world.namespace("bridge")
    bridge = Bridge(namespace)
    one = world.veth_vm(namespace, "bridged1", mac=mac(1), address=address(1))
    two = world.veth_vm(namespace, "bridged2", mac=mac(2), address=address(2))
    three = world.tap_vm(namespace, "bridged3", mac=mac(3), address=address(3))
    for vm in (one, two, three):
        bridge.add(vm.port)
    for kind, pairs in {
        "veth → veth": ((side.vms[0], side.vms[1]), (one, two)),
        "veth → tap": ((side.vms[0], side.vms[2]), (one, three)),
    }.items():
        speeds = [iperf3(a.namespace, b.namespace, b.address, seconds=IPERF_S) / 1e9 for a, b in pairs]
        told = f"{kind:<12} vxagent {speeds[0]:5.1f} Gbit/s   Linux bridge {speeds[1]:5.1f} Gbit/s"
        report.finding(all(speeds), told)
    report.note(f"One run of {IPERF_S:.0f} s each: it shows that both work, not which one is faster.")
    report.note("The tap's far end is a user-space process in Python; that is what limits it.")


def play(report: Report, world: World) -> None:
    """All of it, in order."""
    switch = world.namespace("switch")  # without IPv6: the host's own packets would be among those on the uplink
    fabric = world.fabric(switch, UPLINK)
    blue = build_side(world, switch, fabric, "blue", "acme", 10)
    red = build_side(world, switch, fabric, "red", "umbrella", 20)
    agent = Agent(world.directory(), switch)
    world.cleanup.callback(agent.end)
    wire = world.cleanup.enter_context(fabric.sniff())

    report.heading("A switch, two tenants with the same MACs and addresses, an uplink")
    start(report, agent, [blue, red])
    wire.forget()
    for side, other in ((blue, red), (red, blue)):
        report.heading(f"Within {side.tenant} (segment {side.segment}): everything is answered")
        show_within(report, side, other)
    report.heading("Across tenants: nothing")
    show_across(report, blue, red)
    show_across(report, red, blue)
    report.heading(f"On the uplink {UPLINK}: tagged frames")
    show_uplink(report, wire, [blue, red])
    wire.close()
    report.heading("vxagent fdb list")
    show_fdb(report, agent, [blue, red])
    report.heading("vxagent drops")
    show_drops(report, agent, blue)
    report.heading("iperf3, through the switch and through a Linux bridge")
    show_speed(report, world, blue)


if __name__ == "__main__":
    sys.exit(perform(play))

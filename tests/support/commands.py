"""A switch with something of everything, and a command of every kind: what an agent may die in the middle of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vxagent.core.document import Contents
from vxagent.core.switch import Draft
from vxagent.model.binding import Phase, Projection
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.rate import Rate
from vxagent.model.segment import FITTING_MTU, Segment, UnknownUnicast
from vxagent.model.vtep import Overlay, Vtep

LOCKED = "02:00:00:00:00:01"
STATIC = "02:00:00:00:99:01"

DEVICES = (
    Device(ifname="tap0", ifindex=10, kind="tun"),
    Device(ifname="tap1", ifindex=11, kind="tun"),
    Device(ifname="veth2", ifindex=12, kind="veth"),
    Device(ifname="veth3", ifindex=13, kind="veth"),
    Device(ifname="tap4", ifindex=14, kind="tun", arp=False),  # somebody wants it so
    Device(ifname="eth1", ifindex=15, rxvlan=True),
    Device(ifname="eth2", ifindex=16, rxvlan=True, promisc=True),
    Device(ifname="eth3", ifindex=17, rxvlan=True, addresses=("192.0.2.11",)),
)

OVERLAY = Overlay(vtep="192.0.2.11", device="eth3")
NEAR, FAR = "192.0.2.9", "192.0.2.12"

BLUE = Segment(name="blue", tenant="acme", vlan=10)
RED = Segment(name="red", tenant="acme", vlan=20, multicast_snooping=True)
EVIL = Segment(name="evil", tenant="mallory")
TEAL = Segment(name="teal", tenant="acme", vlan=40, vni=5040, mtu=1450)

TAP = Port(id="tap0", ifname="tap0", segment="blue", macs=(LOCKED,), ips=("10.0.0.1",), rate_in=Rate(bits=10**8))
TRUNK = Port(id="veth2", ifname="veth2", mode=Mode.TRUNK, segment=None, trunk=(("blue", 110),), native="red")
HOST = Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue")
ABSENT = Port(id="tap9", ifname="tap9", segment="evil", isolated=True)


def build(draft: Draft) -> None:
    """A locked tap, a tap that learns, a trunk, the host, a port without a device, an uplink, and two VTEPs."""
    for segment in (BLUE, RED, EVIL, TEAL):
        draft.add_segment(segment)
    for port in (TAP, Port(id="tap1", ifname="tap1", segment="blue", dhcp_snoop=True), TRUNK, HOST, ABSENT):
        draft.attach_port(port)
    draft.add_uplink(Uplink(ifname="eth1"))
    draft.add_fdb(StaticEntry(segment="blue", mac=STATIC, port="tap1"))
    draft.add_vtep(Vtep(address=FAR, vnis=(5040,)))
    draft.add_vtep(Vtep(address=NEAR))
    draft.add_fdb(StaticEntry(segment="teal", mac=STATIC, vtep=FAR))


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something that somebody asks of the switch."""

    name: str
    does: Callable[[Draft], object]


def _attach(**fields: object) -> Callable[[Draft], object]:
    base: dict[str, object] = {"ifname": "tap4", "segment": "blue", **fields}
    return lambda d: d.attach_port(Port(id=str(base["ifname"]), **base))  # type: ignore[arg-type]  # a shorthand


def _set(port: str, **fields: object) -> Callable[[Draft], object]:
    return lambda d: d.set_port(port, **fields)


def _await_a_vm(draft: Draft) -> object:
    """It is on another host, whose VTEP is not known."""
    told = Projection(segment="blue", port="tap4", owner="hv2", next="hv1", phase=Phase.PREPARED)
    draft.cluster_says(replace(draft.state.remote, on=True, told={("blue", "tap4"): told}))
    return draft.attach_port(Port(id="tap4", ifname="tap4", segment="blue", macs=("02:00:00:00:00:04",)))


def _apply(draft: Draft) -> object:
    ports = (
        Port(id="tap4", ifname="tap4", segment="red", ips=("10.0.0.4",)),
        Port(id="tap1", ifname="tap1", segment="red", max_macs=5),
        Port(id="host1", ifname="host1", mode=Mode.INTERNAL, segment="red"),
    )
    entry = StaticEntry(segment="red", mac=STATIC, port="tap4")
    uplinks = (Uplink(ifname="eth2", hook=Hook.TC),)
    return draft.apply(Contents(segments=(RED,), ports=ports, uplinks=uplinks, fdb=(entry,)), prune=True)


COMMANDS = (
    Command(name="segment add", does=lambda d: d.add_segment(Segment(name="green", tenant="acme", vlan=30))),
    Command(name="segment set, its VLAN", does=lambda d: d.set_segment("blue", vlan=11)),
    Command(name="segment set, its MTU", does=lambda d: d.set_segment("blue", mtu=9000)),
    Command(
        name="segment set, its floods",
        does=lambda d: d.set_segment("blue", unknown_unicast=UnknownUnicast.DROP, multicast_snooping=True),
    ),
    Command(name="attach a tap", does=_attach()),
    Command(
        name="attach a tap with everything",
        does=_attach(
            macs=("02:00:00:00:00:04",),
            ips=("10.0.0.4", "10.4.0.0/16", "2001:db8::4"),
            isolated=True,
            dhcp_snoop=True,
            rate_in=Rate(bits=10**8),
            rate_out=Rate(bits=10**9),
            storm_broadcast=100,
        ),
    ),
    Command(name="attach a tap at tc alone", does=_attach(hook=Hook.TC)),
    Command(name="await a VM", does=_await_a_vm),
    Command(name="attach a veth", does=_attach(ifname="veth3", segment="evil")),
    Command(
        name="attach a trunk",
        does=_attach(ifname="veth3", mode=Mode.TRUNK, segment=None, trunk=(("blue", 7), ("red", 8))),
    ),
    Command(name="attach what is not there", does=_attach(ifname="tap8")),
    Command(name="attach the host", does=_attach(ifname="host1", mode=Mode.INTERNAL, segment="red")),
    Command(name="uplink add", does=lambda d: d.add_uplink(Uplink(ifname="eth2"))),
    Command(name="uplink del", does=lambda d: d.delete_uplink("eth1")),
    Command(name="uplink add, the underlay", does=lambda d: d.add_uplink(Uplink(ifname="eth3"))),
    Command(name="vtep add", does=lambda d: d.add_vtep(Vtep(address="192.0.2.13", vnis=(5040,)))),
    Command(
        name="vtep add, of the host that bridges", does=lambda d: d.add_vtep(Vtep(address="192.0.2.8", vnis=(5040,)))
    ),
    Command(name="vtep set, a VNI", does=lambda d: d.set_vtep(NEAR, vnis=(5040, 5050))),
    Command(name="vtep del", does=lambda d: d.delete_vtep(FAR)),
    Command(
        name="segment add, with a VNI",
        does=lambda d: d.add_segment(Segment(name="lime", tenant="acme", vni=5050, mtu=FITTING_MTU)),
    ),
    Command(name="segment set, its VNI", does=lambda d: d.set_segment("evil", vni=5050, mtu=1450)),
    Command(name="fdb add", does=lambda d: d.add_fdb(StaticEntry(segment="blue", mac=STATIC[:-1] + "2", port="tap0"))),
    Command(name="fdb del", does=lambda d: d.delete_fdb("blue", STATIC)),
    Command(name="set, a lock", does=_set("tap1", macs=("02:00:00:00:00:09",), dhcp_snoop=False)),
    Command(name="set, no lock", does=_set("tap0", macs=(), ips=(), rate_in=None)),
    Command(name="set, its segment", does=_set("tap0", segment="red")),
    Command(name="set, its tenant", does=_set("tap0", segment="evil")),
    Command(name="set, another hook", does=_set("tap0", hook=Hook.TC)),
    Command(name="set, a trunk", does=_set("tap1", trunk=(("blue", 5), ("red", 6)))),
    Command(name="set, the host's MAC", does=_set("host0", macs=("02:00:00:00:00:08",))),
    Command(name="set, of what is not there", does=_set("tap9", isolated=False, max_macs=3)),
    Command(name="detach a tap", does=lambda d: d.detach_port("tap0")),
    Command(name="detach one with a lease and a static entry", does=lambda d: d.detach_port("tap1")),
    Command(name="detach a trunk", does=lambda d: d.detach_port("veth2")),
    Command(name="detach what is not there", does=lambda d: d.detach_port("tap9")),
    Command(name="detach the host", does=lambda d: d.detach_port("host0")),
    Command(name="apply", does=_apply),
    Command(name="down", does=lambda d: d.take_off()),
)

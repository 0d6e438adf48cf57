"""A host in an overlay, in memory.

tap0, tap1: segment blue, VLAN 10 and VNI 5010      eth1: the underlay, with this host's VTEP, .11
tap2: segment red, VLAN 20                          eth2: an uplink
VTEPs of others: .12, which has VNI 5010, and .101, which has 5020 as well
"""

from __future__ import annotations

from collections.abc import Callable

from support.sim import Sim
from vxagent.core.effects import Effect
from vxagent.core.switch import Draft
from vxagent.datapath.fake_forwarding import Frame, Outcome
from vxagent.model.device import Device
from vxagent.model.port import Port, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep

OWN, LOWER, HIGHER, FURTHER = "192.0.2.11", "192.0.2.3", "192.0.2.12", "192.0.2.101"
OVERLAY = Overlay(vtep=OWN, device="eth1")
BLUE = Segment(name="blue", tenant="acme", vlan=10, vni=5010, mtu=1450)
RED = Segment(name="red", tenant="acme", vlan=20)
TAP0, TAP1, TAP2 = (Device(ifname=f"tap{n}", ifindex=10 + n, kind="tun") for n in range(3))
ETH1 = Device(ifname="eth1", ifindex=21, rxvlan=True, addresses=(OWN,))
ETH2 = Device(ifname="eth2", ifindex=22, kind="veth")

A, B, REMOTE = 0x020000000001, 0x020000000002, 0x020000000099
REMOTE_MAC = "02:00:00:00:00:99"
ALL = 0xFFFFFFFFFFFF
TAGGED = ((0x8100, 10),)


def build(draft: Draft) -> None:
    """All but the overlay."""
    for segment in (BLUE, RED):
        draft.add_segment(segment)
    for name, of in (("tap0", "blue"), ("tap1", "blue"), ("tap2", "red")):
        draft.attach_port(Port(id=name, ifname=name, segment=of))
    draft.add_uplink(Uplink(ifname="eth2"))
    draft.add_vtep(Vtep(address=HIGHER, vnis=(5010,)))
    draft.add_vtep(Vtep(address=FURTHER, vnis=(5010, 5020)))


def make(overlay: Overlay | None = OVERLAY, underlay: Device = ETH1) -> Sim:
    """The host. It has the lowest address of those with VNI 5010, so it bridges."""
    sim = Sim(TAP0, TAP1, TAP2, underlay, ETH2, overlay=overlay)
    sim.change(build)
    sim.settle()
    return sim


def handle(sim: Sim, name: str) -> int:
    """Of an owner in the space "port"."""
    return sim.switch.state.numbers.number("port", name)


def broadcast(sim: Sim, device: Device = TAP0, tags: tuple[tuple[int, int], ...] = ()) -> Outcome:
    """What becomes of one that comes in there."""
    return sim.datapath.forward(device.ifindex, Frame(src=A, dst=ALL, tags=tags))


def effects_of(sim: Sim, command: Callable[[Draft], object]) -> tuple[Effect, ...]:
    """What a command would do."""
    draft = sim.switch.draft()
    command(draft)
    return draft.plan().effects


def reconfigure(sim: Sim, overlay: Overlay | None) -> None:
    """The config says so from the next start on, which is now."""
    sim.overlay = overlay
    sim.restart()
    sim.settle()

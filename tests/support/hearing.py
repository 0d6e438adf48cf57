"""Who hears what: a frame is sent into the switch and looked for wherever it could arrive.

    [VM or fabric] ── frame ──► switch ──► ears

That somebody does *not* hear it is shown without waiting for a time: the switch has counted the frame, and what is then
sent straight over the last leg (out of the port's device, not through the switch) has arrived at every ear.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from support.frames import L3
from support.lan import Lan
from vxagent.lab.fabric import TRUNK, Fabric
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, Frame, ethernet
from vxagent.lab.namespaces import Namespace
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

Party: TypeAlias = VethVm | TapVm | Fabric
Send: TypeAlias = Callable[[Namespace, str, bytes], None]

LAST_LEG = "02:ff:ff:ff:ff:ff"  # source of the frames that show that what came before has arrived

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a party is: its own device, and the switch's device in front of it."""

    namespace: Namespace
    ifname: str
    switch: Namespace
    port: str


def place_of(party: Party) -> Place:
    """Of a VM or a fabric."""
    if isinstance(party, Fabric):
        return Place(namespace=party.namespace, ifname=TRUNK, switch=party.switch, port=party.uplink)
    return Place(namespace=party.namespace, ifname=NIC, switch=party.switch, port=party.port)


def frame(
    destination: str,
    source: str,
    *,
    tags: tuple[tuple[int, int], ...] = (),
    ethertype: int = EXPERIMENTAL,
    size: int = 46,
) -> bytes:
    """A frame that is recognised by its payload wherever it turns up, whatever became of its tags.

    Args:
        destination, source: MACs.
        tags: (TPID, TCI), outermost first.
        ethertype: of the payload.
        size: bytes of L3, at least 46.
    """
    payload = f"frame {next(_numbers)} ".encode().ljust(size, b".")
    return ethernet(destination, source, ethertype, payload, tags=tags)


def marked(inside: L3) -> L3:
    """An L3 payload, padded with what tells it from all others."""
    return L3(inside.ethertype, inside.data + f"frame {next(_numbers)} ".encode().ljust(46, b"."))


def vlan(*vids: int) -> tuple[tuple[int, int], ...]:
    """Tags of TPID 0x8100, outermost first."""
    return tuple((0x8100, vid) for vid in vids)


def overhear(lan: Lan, sender: Party, sent: bytes, *ears: Party, by: Send = send_frames) -> list[list[Frame]]:
    """All that arrives at each of the ears while one frame passes the switch.

    Args:
        sender: from where it enters the switch, through a port or an uplink.
        sent: the frame.
        ears: where to listen.
        by: sends it out of the sender's device.
    """
    origin = place_of(sender)
    places = [place_of(ear) for ear in ears]
    with listening(*places) as sniffers:
        before = lan.received(origin.port)
        by(origin.namespace, origin.ifname, sent)
        wait_until(lambda: lan.received(origin.port) > before, what=f"the switch takes a frame from {origin.port}")
        finish_last_legs(places, sniffers)
        return [sniffer.frames(lambda arrived: arrived.source != LAST_LEG) for sniffer in sniffers]


def hear(lan: Lan, sender: Party, sent: bytes, *ears: Party, by: Send = send_frames) -> list[list[Frame]]:
    """What of one frame, made by `frame`, arrives at each of the ears; see `overhear`."""
    return [copies_of(sent, frames) for frames in overhear(lan, sender, sent, *ears, by=by)]


def copies_of(sent: bytes, frames: list[Frame]) -> list[Frame]:
    """Those that are of this frame, made by `frame`."""
    text = sent[sent.index(b"frame ") :].rstrip(b"\0")
    return [arrived for arrived in frames if text in arrived.data]


def who_hears(lan: Lan, sender: Party, sent: bytes, *ears: Party, by: Send = send_frames) -> list[str]:
    """Ports and uplinks of those of the ears at which one frame arrives, once for each copy; see `hear`."""
    arrived = hear(lan, sender, sent, *ears, by=by)
    return [place_of(ear).port for ear, copies in zip(ears, arrived, strict=True) for _ in copies]


def ports_of(*parties: Party) -> list[str]:
    """Their ports and uplinks, to compare with what `who_hears` gives."""
    return [place_of(party).port for party in parties]


@contextmanager
def listening(*places: Place) -> Iterator[list[Sniffer]]:
    """A sniffer at each place. The kernel takes some 20 ms to close one: all are closed at once."""
    sniffers: list[Sniffer] = []
    try:
        for place in places:
            sniffers.append(Sniffer(place.namespace, place.ifname))  # noqa: PERF401  # those before a failure are closed
        yield sniffers
    finally:
        with ThreadPoolExecutor(max(1, len(sniffers))) as pool:
            list(pool.map(Sniffer.close, sniffers))


def finish_last_legs(places: list[Place], sniffers: list[Sniffer]) -> None:
    """Have what is on its way out of the switch's devices arrive."""
    last = frame(BROADCAST, LAST_LEG)
    for place in places:
        send_frames(place.switch, place.port, last)
    for sniffer in sniffers:
        sniffer.wait_for(lambda arrived: arrived.data == last)

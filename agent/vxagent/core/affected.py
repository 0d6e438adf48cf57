"""Whose rows may differ when something else does: a device, a VTEP, where a segment is between hosts."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vxagent.core.numbers import vtep_owner
from vxagent.core.remote import Remote
from vxagent.core.state import Owner, State
from vxagent.model.binding import Projection


def members(state: State, segment: str) -> Iterator[Owner]:
    """The ports in a segment."""
    for port in state.ports.values():
        if any(name == segment for name, _ in port.memberships):
            yield "port", port.id


def between(state: State, vnis: Collection[int | None] = ()) -> Iterator[Owner]:
    """What changes with where segments are between hosts: all uplinks, and the VTEPs that have one of these VNIs."""
    for ifname in state.uplinks:
        yield "port", ifname
    wanted = frozenset(vnis) - {None}
    for vtep in state.vteps.values() if wanted else ():
        if not wanted.isdisjoint(vtep.vnis):
            yield "port", vtep_owner(vtep.address)
    for address in state.remote.by_vtep if wanted else ():
        yield "port", vtep_owner(address)
    for segment, port in state.remote.told if wanted else ():
        yield "told", f"{segment}/{port}"


def cluster(old: Remote, new: Remote, state: State) -> Iterator[Owner]:
    """What changes when the cluster says something else."""
    if old.on != new.on or old.bridges != new.bridges:
        yield from between(state)
    for segment in state.segments if old.on != new.on else ():
        yield "segment", segment
    changed = {name for name in old.peers.keys() | new.peers.keys() if old.peers.get(name) != new.peers.get(name)}
    for name in changed:
        yield "peer", name
        for peer in (old.peers.get(name), new.peers.get(name)):
            if peer is not None:
                yield "port", vtep_owner(peer.vtep)
    for segment in old.bridges.keys() | new.bridges.keys():
        if old.bridges.get(segment) != new.bridges.get(segment):
            yield "bridge", segment
    for key in old.told.keys() | new.told.keys():
        before, now = old.told.get(key), new.told.get(key)
        is_news = before is not now and before != now  # of thousands that are the same one
        if is_news or (changed and not changed.isdisjoint(_hosts_of(before, now))):
            yield from _told(state, *key)
    yield from _of_this_host(old, new, state)


def _hosts_of(*told: Projection | None) -> Iterator[str | None]:
    for at in told:
        if at is not None:
            yield from (at.owner, at.next)


def _of_this_host(old: Remote, new: Remote, state: State) -> Iterator[Owner]:
    for kind, name in old.doubtful ^ new.doubtful:
        yield "doubtful", f"{kind}/{name}"
    begun = (getattr(old, name) ^ getattr(new, name) for name in ("leaving", "drained", "arrived", "announced"))
    for port in frozenset[str]().union(*begun):
        yield "arrived", port
        for segment, of in new.told:
            if of == port:
                yield from _told(state, segment, of)


def told(state: State, port: str) -> Iterator[Owner]:
    """What goes by whether this host has the port: what the cluster says of it, and whether its segments redirect."""
    for segment, of in state.remote.told if port in state.remote.ports else ():
        if of == port:
            yield "told", f"{segment}/{port}"
            if segment in state.segments:
                yield "segment", segment


def _told(state: State, segment: str, port: str) -> Iterator[Owner]:
    yield "told", f"{segment}/{port}"
    if segment in state.segments:
        yield "segment", segment
    if port in state.ports:
        yield "port", port


def underlay(state: State, ifname: str | None = None) -> Iterator[Owner]:
    """What changes with who has the underlay device; nothing where it is another one than `ifname`."""
    if state.overlay is not None and ifname in (None, state.overlay.device):
        yield "overlay", ""
        yield "port", state.underlay


def overlay(state: State) -> Iterator[Owner]:
    """All that is otherwise with another overlay, or without one."""
    yield "overlay", ""
    for name in state.between:
        yield "port", name
    for segment in state.segments.values():
        if segment.vni is not None:
            yield "segment", segment.name


def devices(state: State, ifnames: set[str]) -> Iterator[Owner]:
    """What changes with these devices. Tunnels go out on the underlay."""
    for ifname in ifnames & state.uplinks.keys():
        yield "port", ifname
    for port in state.ports.values():
        if state.device_name(port) in ifnames:
            yield "port", port.id
    if state.overlay is not None and state.overlay.device in ifnames:
        yield "overlay", ""
        for name in state.between:
            yield "port", name

"""Desired objects as documents for the store, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from vxagent.core.effects import Document
from vxagent.core.numbers import VTEP, Numbers, slots_for
from vxagent.core.remote_saved import REMOTE, load_remote, remote_document
from vxagent.core.state import Before, Owner, State
from vxagent.core.unfinished import from_document
from vxagent.errors import StoreError, VxagentError
from vxagent.model.fdb import StaticEntry
from vxagent.model.lease import Lease
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.rate import Rate
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.model.vtep import Overlay, Vtep

Saved = Segment | Port | Uplink | Overlay | Vtep | StaticEntry | Lease | Before


def to_document(saved: Saved) -> Document:
    """The object as a JSON-able dict of its fields."""
    return asdict(saved)


def documents_of(state: State, touched: Iterable[Owner]) -> dict[tuple[str, str], Document]:
    """What the store should hold of the touched objects: themselves, their numbers, their devices' settings."""
    found: dict[tuple[str, str], Document] = {}
    for kind, name in touched:
        if kind == "segment" and name in state.segments:
            found["segment", name] = to_document(state.segments[name])
            _add_number(found, state, "segment", name)
        elif kind == "fdb":
            segment, _, mac = name.partition("/")
            if (segment, mac) in state.fdb:
                found["fdb", name] = to_document(state.fdb[segment, mac])
        elif kind == "lease" and name in state.leases:
            found["lease", name] = {"leases": [to_document(lease) for lease in state.leases[name]]}
        elif kind in REMOTE:
            document = remote_document(state.remote, kind, name)
            if document is not None:
                found[kind, name] = document
        elif kind == "overlay" and state.overlay is not None:
            found["overlay", name] = to_document(state.overlay)
        elif kind == "port":
            _add_port(found, state, name)
    return found


def load_state(documents: dict[tuple[str, str], Document]) -> State:
    """The desired state that the store holds; devices, rows and attachments are not known yet.

    Raises:
        StoreError: a document that this version did not write.
    """
    state = State()
    given: dict[tuple[str, str], int] = {}
    remote = {key: document for key, document in documents.items() if key[0] in REMOTE}
    for (kind, name), document in documents.items():
        try:
            if kind in REMOTE:
                continue
            _load(state, given, kind, name, dict(document))
        except (VxagentError, TypeError, ValueError, KeyError) as exc:
            raise StoreError(
                f"the state database holds a {kind} {name} that cannot be read ({exc})",
                "use the version that wrote it, or move the state directory away",
            ) from exc
    state.numbers = Numbers(given)
    state.remote = load_remote(remote)
    return state


def _load(state: State, given: dict[tuple[str, str], int], kind: str, name: str, fields: dict[str, Any]) -> None:
    match kind:
        case "segment":
            fields["unknown_unicast"] = UnknownUnicast(fields["unknown_unicast"])
            state.segments[name] = Segment(**fields)
        case "port":
            fields.update(
                mode=Mode(fields["mode"]),
                hook=Hook(fields["hook"]),
                trunk=tuple((segment, vid) for segment, vid in fields["trunk"]),
                macs=tuple(fields["macs"]),
                ips=tuple(fields["ips"]),
                **{key: Rate(**fields[key]) for key in ("rate_in", "rate_out") if fields.get(key) is not None},
            )
            state.ports[name] = Port(**fields)
        case "uplink":
            fields["hook"] = Hook(fields["hook"])
            state.uplinks[name] = Uplink(**fields)
        case "overlay":
            state.overlay = Overlay(**fields)
        case "vtep":
            fields["vnis"] = tuple(fields["vnis"])
            state.vteps[name] = Vtep(**fields)
        case "fdb":
            entry = StaticEntry(**fields)
            state.fdb[entry.segment, entry.mac] = entry
        case "lease":
            state.leases[name] = tuple(Lease(**lease) for lease in fields["leases"])
        case "before":
            state.before[name] = Before(**fields)
        case "unfinished":
            state.unfinished = from_document(fields)
        case "number":
            space, owner, number = fields["space"], fields["owner"], fields["number"]
            given[space, owner] = int(number)
        case _:
            raise ValueError("unknown kind")


def _add_port(found: dict[tuple[str, str], Document], state: State, name: str) -> None:
    """An owner in the space "port": itself, if it is desired, and what it has if it is to have a handle."""
    address = name.removeprefix(VTEP)
    if name in state.ports:
        found["port", name] = to_document(state.ports[name])
    elif name in state.uplinks:
        found["uplink", name] = to_document(state.uplinks[name])
    elif address != name and address in state.vteps:
        found["vtep", address] = to_document(state.vteps[address])
    if not state.exists(name):
        return
    _add_number(found, state, "port", name)
    _add_number(found, state, "counter", name)
    for segment, _ in state.memberships(name):
        _add_number(found, state, slots_for(name, segment), name)
        _add_number(found, state, "counter", f"{name}/{segment}")
    ifname = state.device_of(name)
    if ifname in state.before:
        found["before", ifname] = to_document(state.before[ifname])


def _add_number(found: dict[tuple[str, str], Document], state: State, space: str, owner: str) -> None:
    number = state.numbers.given.get((space, owner))
    if number is not None:
        found["number", f"{space}:{owner}"] = {"space": space, "owner": owner, "number": number}

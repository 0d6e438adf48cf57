"""What an agent that dies in the middle of a change leaves to the next one.

Rows and programs are seen in the kernel, and the next start makes them right by difference. Some things are not to be
seen there: how a device was set before the switch took it, whether what the agent took was set up again, whose
learned entries and counters these are. Effects on those are saved with the desired state that they follow from, in one
transaction, and applied again at the next start if they may not have been to their end. Each does no harm twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from vxagent.core.effects import (
    ClearCounters,
    Detach,
    Document,
    Effect,
    EndLeases,
    FlushFdb,
    InternalPair,
    RemoveInternal,
    SetDevice,
    SetQueue,
)

UNFINISHED = ("unfinished", "")
"""The key of the document: there is one at most, of the change that is being made or was made last."""

_SHOWN_BY_THE_KERNEL = (Detach,)
"""Kept only for their place between the others."""

_KINDS: dict[str, Callable[..., Effect]] = {
    "ClearCounters": lambda counters, **fields: ClearCounters(counters=tuple(counters), **fields),
    "Detach": Detach,
    "EndLeases": EndLeases,
    "FlushFdb": FlushFdb,
    "RemoveInternal": lambda pair: RemoveInternal(pair=InternalPair(**pair)),
    "SetDevice": lambda undo, **fields: SetDevice(undo=tuple(undo), **fields),
    "SetQueue": SetQueue,
}


def to_document(effects: Iterable[Effect]) -> Document | None:
    """The document that keeps these effects; None where the kernel shows all that they are about."""
    kept = [effect for effect in effects if type(effect).__name__ in _KINDS]
    if all(isinstance(effect, _SHOWN_BY_THE_KERNEL) for effect in kept):
        return None
    return {"effects": [{"kind": type(effect).__name__, **asdict(effect)} for effect in kept]}


def from_document(document: dict[str, Any]) -> tuple[Effect, ...]:
    """The effects that it keeps.

    Raises:
        KeyError, TypeError, ValueError: this version did not write it.
    """
    return tuple(_effect(**fields) for fields in document["effects"])


def _effect(kind: str, **fields: Any) -> Effect:
    return _KINDS[kind](**fields)

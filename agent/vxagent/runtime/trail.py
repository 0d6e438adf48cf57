"""The log of changes: one line for each that somebody asked for, with who, what and how it ended.

    change by alice (uid 1000, vxagent[4711]): POST /v1/ports ifname="tap0" segment="blue": done

Reading is not logged. What is asked for holds no secrets; a document of `apply` shows by its size.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping

import msgspec
from starlette.requests import Request

from vxagent.protocol.answers import Applied, Done, Evacuated, Flushed, Forgotten
from vxagent.runtime.peers import peer_of, who

log = logging.getLogger(__name__)

VALUE_MAX = 200
"""Characters of one value, and of a sentence, that the line holds."""


async def note(request: Request, body: object, outcome: str) -> None:
    """Log one change.

    Args:
        request: which asked for it.
        body: its body, as far as it was understood; None: it has none.
        outcome: as `outcome_of`, or why it was refused.
    """
    asker = await asyncio.to_thread(who, peer_of(request))  # names of users may come from far away
    log.info("change by %s: %s: %s", asker, what(request.method, request.url.path, body), _line(outcome))


def what(method: str, path: str, body: object) -> str:
    """The change in one line without control characters: method, path, and what was given beyond defaults."""
    given = msgspec.to_builtins(body) if isinstance(body, msgspec.Struct) else {}
    fields = [f"{name}={_value(name, value)}" for name, value in given.items()] if isinstance(given, Mapping) else []
    return " ".join([method, _line(path), *fields])


def outcome_of(answer: object) -> str:
    """How a change that was not refused ended."""
    match answer:
        case Done(changed=False):
            return "done, nothing changed"
        case Applied(changes=changes):
            return f"done, {len(changes)} changes"
        case Flushed(removed=removed):
            return f"done, {removed} removed"
        case Evacuated(ports=ports):
            return f"done, {len(ports)} ports taken"
        case Forgotten(ports=ports):
            return f"done, {len(ports)} ports ended with it"
    return "done"


def _value(name: str, value: object) -> str:
    if name == "text":
        return f"({len(str(value))} characters)"
    return _cut(json.dumps(value, separators=(",", ":")))  # which escapes what is not ASCII


def _line(text: str) -> str:
    return _cut("".join(c if c.isprintable() else " " for c in text))


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"

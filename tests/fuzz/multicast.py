"""Frames for groups: data, reports, queries and what is nearly one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from support import multicast
from support.frames import L3

GROUPS = ("239.1.1.1", "239.1.1.2", "224.1.2.3", "224.0.0.251", "ff05::1:3", "ff0e::7", "ff02::fb")
RESPONSES_MS = (0, 100, 1_000, 10_000, 20_000)
QUERIES = (1, 2, 3, 61, 62)  # versions, as support.multicast has them


def draw(rng: Random) -> tuple[L3, str, bytes]:
    """L3, what it is, and the MAC that it goes to."""
    makers: dict[str, tuple[int, Callable[[], bytes]]] = {
        "data": (8, lambda: multicast.data(rng.choice(GROUPS))),
        "report": (5, lambda: multicast.report(rng.choice(GROUPS), version=rng.choice((0x12, 0x16)))),
        "leave": (2, lambda: multicast.leave(rng.choice(GROUPS))),
        "records": (4, lambda: _records(rng)),
        "query": (4, lambda: _query(rng)),
        "hello": (1, lambda: multicast.hello(rng.choice((4, 6)), ttl=rng.choice((1, 1, 1, 2)))),
    }
    (kind,) = rng.choices(list(makers), [weight for weight, _ in makers.values()])
    frame = makers[kind][1]()
    data = bytearray(frame[14:])
    if rng.random() < 0.1:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        kind += ", odd"
    return L3(int.from_bytes(frame[12:14], "big"), bytes(data)), f"group {kind}", frame[:6]


def _query(rng: Random) -> bytes:
    version = rng.choice(QUERIES)
    general = rng.random() < 0.8
    group = "" if general else rng.choice([group for group in GROUPS if (":" in group) == (version > 6)])
    made = multicast.query(
        version,
        group=group,
        response_ms=rng.choice(RESPONSES_MS if version != 62 else (*RESPONSES_MS, 0x8000, 0xFFFF)),
        sources=0 if general else rng.choice((0, 1)),
        ttl=rng.choice((1,) * 9 + (2,)),
    )
    return multicast.broken(made) if rng.random() < 0.05 else made


def _records(rng: Random) -> bytes:
    wide = rng.random() < 0.5
    many = rng.random() < 0.25
    groups = [group for group in GROUPS if (":" in group) == wide]
    if many:
        groups = [f"ff08::{rng.randrange(1000):x}" if wide else f"239.2.0.{rng.randrange(256)}" for _ in range(64)]
    count = rng.choice((60, 64)) if many else rng.choice((1, 1, 2, 3))
    several = [
        (
            rng.choice(groups),
            rng.choice((4, 2, 3, 1, 5, 6, 4, 9)),
            rng.choice((0, 0, 1, 2)) if not many else 0,
            rng.choice((0, 0, 0, 1)),
        )
        for _ in range(count)
    ]
    claimed = rng.choice((None,) * 8 + (0, 1, 65, 200))
    return multicast.records(*several, count=claimed, cut=rng.choice((0,) * 9 + (1,)))

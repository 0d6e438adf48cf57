"""Hosts that migrate a port all at once, and what its history must look like afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from vxagent.errors import ClusterAmbiguous, ClusterAway, Conflict, WrongPhase
from vxagent.model.binding import Binding, Phase
from vxagent.store.cluster import Cluster
from vxagent.store.kv import Kv, Range, WatchEvent
from vxagent.store.schema import Keys, parse_binding


@dataclass
class Log:
    """What hosts were told, by the names of their requests.

    Attributes:
        done: the binding that a request that was done left behind.
        unknown: requests of which nobody knows.
        refused: requests that were refused, which must not have been done.
    """

    done: dict[str, Binding] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    away: int = 0


async def storm(hosts: list[Cluster], port: str, steps: int, seed: int, log: Log) -> None:
    """Each host takes so many random steps, all at the same time. The port is bound. Seeds differ in one log."""

    async def rage(host: Cluster, chance: random.Random) -> None:
        for number in range(steps):
            step = chance.choice(["prepare", "prepare", "switchover", "activate", "activate", "cancel"])
            op = f"{host._host}-{seed}-{number}-{step}@0"
            try:
                known = await host.binding(port)
                op = op.removesuffix("0") + str(known.revision if known else 0)
                binding = await getattr(host, step)(port, op=op)
            except (WrongPhase, Conflict):
                log.refused.add(op)
            except ClusterAmbiguous:
                log.unknown.add(op)
            except ClusterAway:
                log.refused.add(op)
                log.away += 1
            else:
                log.done[op] = binding

    chances = random.Random(seed)
    await asyncio.gather(*(rage(host, random.Random(chances.random())) for host in hosts))


async def history(kv: Kv, cluster: str, port: str, first: int, last: int) -> list[Binding]:
    """All that the port's key has been, from revision `first` to `last`, by a watch."""
    keys = Keys(cluster)
    watch = await kv.watch(Range(keys.schema))
    watch.add(Range(keys.port(port)), first)
    events: list[WatchEvent] = []
    async with asyncio.timeout(20):
        while not events or events[-1].kv.mod_revision < last:
            events += (await watch.next()).events
    await watch.close()
    told = [parse_binding(keys, event.kv) for event in events]
    assert not any(event.deleted for event in events)
    return [binding for binding in told if isinstance(binding, Binding)]


def check(told: list[Binding], log: Log) -> Counter[str]:
    """There was one owner at a time, each step was allowed by the one before it, and hosts were told the truth.

    Returns:
        How often each step was done.
    """
    assert told
    owners: dict[int, str] = {}
    for binding in told:
        assert owners.setdefault(binding.epoch, binding.owner) == binding.owner  # an epoch has one owner
    for before, now in pairwise(told):
        host, _, _, step = now.op.partition("@")[0].split("-")
        moved = (before.phase, step, now.phase, now.owner == before.owner, now.epoch - before.epoch)
        assert moved in {
            (Phase.BOUND, "prepare", Phase.PREPARED, True, 0),
            (Phase.PREPARED, "switchover", Phase.SWITCHED, True, 0),
            (Phase.PREPARED, "activate", Phase.BOUND, False, 1),
            (Phase.SWITCHED, "activate", Phase.BOUND, False, 1),
            (Phase.PREPARED, "cancel", Phase.BOUND, True, 0),
            (Phase.SWITCHED, "cancel", Phase.BOUND, True, 0),
        }, (before, now)
        asker = {"prepare": now.next, "switchover": before.owner, "activate": before.next}.get(step)
        assert host == asker if asker else host in {before.owner, before.next}
    ops = [binding.op for binding in told[1:]]
    assert len(ops) == len(set(ops))  # nothing was done twice
    assert not log.refused & set(ops)
    versions = {binding.op: binding for binding in told}
    for op, binding in log.done.items():  # done now, or there already
        assert versions[binding.op] == binding
        assert binding.op == op or op not in versions
    assert set(ops) <= set(log.done) | log.unknown
    return Counter(op.partition("@")[0].rsplit("-", 1)[-1] for op in ops)

"""The one transaction that makes a binding another one: its record, its projections, and what is its alone."""

from __future__ import annotations

from dataclasses import dataclass

from vxagent.model.binding import Binding
from vxagent.store.kv import Compare, Delete, KeyValue, Op, Put, Range, absent, present, unchanged
from vxagent.store.schema import Keys, encode, fdb_value, port_value


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingWrite:
    """What must hold, and what is done then.

    Attributes:
        needs: the segments that the host must have.
        dead: the hosts that must not be alive.
        claims: the keys of MACs and addresses that nobody may have yet.
    """

    needs: tuple[str, ...]
    dead: tuple[str, ...]
    claims: tuple[str, ...]
    compares: tuple[Compare, ...]
    ops: tuple[Op, ...]

    @property
    def keys(self) -> int:
        """How many it takes, with the session's."""
        return max(len(self.compares) + 1, len(self.ops))

    def in_the_way(self, found: tuple[tuple[KeyValue, ...], ...]) -> tuple[str | None, str | None, KeyValue | None]:
        """Of what was found for each compare: a segment that lacks, a host that lives, a claim of somebody's."""
        _, *others = found
        has, others = others[: len(self.needs)], others[len(self.needs) :]
        live, taken = others[: len(self.dead)], others[len(self.dead) :]
        lacking = next((segment for segment, kvs in zip(self.needs, has, strict=True) if not kvs), None)
        alive = next((host for host, kvs in zip(self.dead, live, strict=True) if kvs), None)
        return lacking, alive, next((kvs[0] for kvs in taken if kvs), None)


def write_binding(
    keys: Keys, host: str, port: str, old: Binding | None, new: Binding | None, dead: tuple[str, ...] = ()
) -> BindingWrite:
    """A port's binding from `old` (None: there is none) to `new` (None: it ends), asked for by `host`."""
    held = set(keys.claims(old)) if old else set()
    wanted = keys.claims(new) if new else ()
    claims = tuple(key for key in wanted if key not in held)
    known = old.segments if old and host in {old.owner, old.next} else ()
    needs = tuple(segment for segment in (new.segments if new else ()) if segment not in known)
    compares = (
        unchanged(keys.port(port), old.revision if old else 0),
        *(present(keys.has(segment, host)) for segment in needs),
        *(absent(keys.live(other)) for other in dead),
        *(absent(key) for key in claims),
    )
    gone = [
        keys.fdb(segment, port) for segment in (old.segments if old else ()) if not new or segment not in new.segments
    ]
    gone += sorted(held.difference(wanted))
    ops: list[Op] = [Delete(Range(key)) for key in gone]
    ops.append(Delete(keys.all("ack", port)))  # of another revision
    if old is None:  # as its end does: a port that does not fit into the transaction of that does not begin either
        ops.append(Delete(Range(keys.carry(port))))
    if new is None:
        ops += [Delete(Range(keys.port(port))), Delete(Range(keys.carry(port)))]
    else:
        ops.append(Put(keys.port(port), port_value(new)))
        ops += [Put(keys.fdb(segment, port), fdb_value(new)) for segment in new.segments]
        ops += [Put(key, encode(port)) for key in claims]
    return BindingWrite(needs=needs, dead=dead, claims=claims, compares=compares, ops=tuple(ops))

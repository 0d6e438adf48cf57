"""Segments in the cluster: who has them, and who bridges them."""

from __future__ import annotations

from vxagent.errors import Conflict
from vxagent.model.cluster import Bridge, ClusterSegment
from vxagent.store.kv import Compare, Delete, KeyValue, Op, Put, Range, absent, present, unchanged
from vxagent.store.schema import bridge_value, encode, parse, parse_name, segment_value
from vxagent.store.under_session import TRIES, Found, UnderSession

_SHOWN = 3


class Segments(UnderSession):
    """What hosts agree on about segments."""

    async def claim_segment(self, segment: ClusterSegment) -> None:
        """This host has the segment from now on. Claiming it again is no failure.

        Who has it alone may change it.

        Raises:
            Conflict: it is another one in the cluster (tenant, VLAN, VNI or MTU), or its VLAN or VNI is another
                segment's. The message names it, and hosts that have it.
        """
        name, keys = segment.name, self._keys
        numbers = keys.numbers(segment)
        for _ in range(TRIES):
            known, has, *taken = await self._read(
                Range(keys.segment(name)), keys.all("has", name), *(Range(key) for key in numbers)
            )
            old = self._parsed_segment(name, known)
            hosts = [keys.words(kv.key)[-1] for kv in has]
            for key, holder in zip(numbers, taken, strict=True):
                if holder and parse_name(holder) != name:
                    raise self._number_taken(segment, key, parse_name(holder))
            if old == segment and self._host in hosts:
                return
            others = [host for host in hosts if host != self._host]
            if old is not None and old != segment and others:
                raise _differs(old, segment, others)
            compares = [unchanged(keys.segment(name), known[0].mod_revision if known else 0)]
            ops: list[Op] = [Put(keys.has(name, self._host), b"{}")]
            if old != segment:
                compares += [absent(asked) for asked in keys.hosts_have(name, self._host) if old is not None]
                compares += [
                    unchanged(k, kvs[0].mod_revision if kvs else 0) for k, kvs in zip(numbers, taken, strict=True)
                ]
                ops.append(Put(keys.segment(name), segment_value(segment)))
                ops += [Put(key, encode(name)) for key in numbers]
                ops += [Delete(Range(key)) for key in (keys.numbers(old) if old else ()) if key not in numbers]
            if (await self._change(tuple(compares), tuple(ops))).succeeded:
                return
        raise self._contended(f"segment {name}")

    async def leave_segment(self, segment: str) -> bool:
        """This host no longer has it, nor bridges it; return whether nobody has it, so that it is gone.

        Leaving what one does not have is no failure.

        Raises:
            Conflict: a port in it is bound here.
        """
        (ports,) = await self._read(self._keys.all("fdb", segment))
        for kv in ports:
            told = parse(self._keys, kv)
            if getattr(told, "owner", None) == self._host:
                raise Conflict(
                    f"segment {segment} is in use by port {self._keys.words(kv.key)[-1]} on this host",
                    "detach it first",
                )
        return await self._leave(segment, self._host, ())

    async def claim_bridge(self, segment: str, *, instead_of: str | None = None) -> str:
        """Bridge the segment's VLAN and VNI if nobody does; return the host that does.

        The claim stays when the host dies: its data plane goes on without an agent.

        Args:
            instead_of: the dead host that has bridged it so far and that the caller knows to be silent.

        Raises:
            Conflict: this host does not have the segment; or `instead_of` is alive.
        """
        key = self._keys.bridge(segment)
        for _ in range(TRIES):
            ((*known,),) = await self._read(Range(key))
            bridge = parse(self._keys, known[0]) if known else None
            holder = bridge.host if isinstance(bridge, Bridge) else None
            if holder is not None and holder != instead_of:
                return holder
            compares = [unchanged(key, known[0].mod_revision if known else 0)]
            compares += [present(self._keys.has(segment, self._host))]
            compares += [] if instead_of is None else [absent(self._keys.live(instead_of))]
            result = await self._change(tuple(compares), (Put(key, bridge_value(self._host)),))
            if result.succeeded:
                return self._host
            if not result.found[1]:
                raise Conflict(f"host {self._host} does not have segment {segment}", "claim the segment first")
            if instead_of is not None and result.found[2]:
                raise Conflict(f"host {instead_of}, which bridges segment {segment}, is alive", "let it release it")
        raise self._contended(f"the bridge of segment {segment}")

    async def release_bridge(self, segment: str) -> None:
        """Bridge it no longer. If this host does not, that is no failure."""
        key = self._keys.bridge(segment)
        for _ in range(TRIES):
            ((*known,),) = await self._read(Range(key))
            if not self._bridged_by(known, self._host):
                return
            if (await self._change((unchanged(key, known[0].mod_revision),), (Delete(Range(key)),))).succeeded:
                return
        raise self._contended(f"the bridge of segment {segment}")

    async def _leave(self, segment: str, host: str, guards: tuple[Compare, ...]) -> bool:
        """A host no longer has the segment; whoever goes last takes the segment along.

        Raises:
            Conflict: a guard does not hold.
        """
        keys = self._keys
        for _ in range(TRIES):
            found = await self._read(
                Range(keys.segment(segment)), keys.all("has", segment), Range(keys.bridge(segment))
            )
            known, has, _ = found
            others = [kv for kv in has if kv.key != keys.has(segment, host)]
            if len(others) == len(has) and (others or not known):
                return not known
            compares, ops = self._leaving(segment, host, found, others)
            result = await self._change((*guards, *compares), ops)
            if result.succeeded:
                return not others
            if any(result.found[: len(guards)]):
                raise Conflict(f"host {host} is alive", "ask it")
        raise self._contended(f"segment {segment}")

    def _leaving(
        self, segment: str, host: str, found: Found, others: list[KeyValue]
    ) -> tuple[tuple[Compare, ...], tuple[Op, ...]]:
        known, _, bridge = found
        keys = self._keys
        compares: list[Compare] = []
        ops: list[Op] = [Delete(Range(keys.has(segment, host)))]
        if bridge and (not others or self._bridged_by(list(bridge), host)):
            compares.append(unchanged(keys.bridge(segment), bridge[0].mod_revision))
            ops.append(Delete(Range(keys.bridge(segment))))
        if others:  # one of them stays, so the segment may
            compares.append(unchanged(others[0].key, others[0].mod_revision))
            return tuple(compares), tuple(ops)
        compares += [absent(asked) for asked in keys.hosts_have(segment, host)]
        if known:
            compares.append(unchanged(keys.segment(segment), known[0].mod_revision))
            ops.append(Delete(Range(keys.segment(segment))))
            old = parse(keys, known[0])
            ops += [Delete(Range(key)) for key in (keys.numbers(old) if isinstance(old, ClusterSegment) else ())]
        return tuple(compares), tuple(ops)

    def _bridged_by(self, known: list[KeyValue], host: str) -> bool:
        bridge = parse(self._keys, known[0]) if known else None
        return isinstance(bridge, Bridge) and bridge.host == host

    def _parsed_segment(self, name: str, known: tuple[KeyValue, ...]) -> ClusterSegment | None:
        if not known:
            return None
        segment = parse(self._keys, known[0])
        if not isinstance(segment, ClusterSegment):
            raise Conflict(f"what the cluster holds of segment {name} cannot be read", f"mend or remove {known[0].key}")
        return segment

    def _number_taken(self, segment: ClusterSegment, key: str, holder: str) -> Conflict:
        kind, number = self._keys.words(key)
        return Conflict(
            f"{kind} {number} is segment {holder}'s in cluster {self._name}",
            f"choose another {kind} for {segment.name}",
        )


def _differs(old: ClusterSegment, new: ClusterSegment, hosts: list[str]) -> Conflict:
    fields = [f for f in ("tenant", "vlan", "vni", "mtu") if getattr(old, f) != getattr(new, f)]
    has = ", ".join(f"{field} {getattr(old, field) or 'none'}" for field in fields)
    wants = ", ".join(f"{field} {getattr(new, field) or 'none'}" for field in fields)
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return Conflict(
        f"segment {old.name} has {has} on {', '.join(hosts[:_SHOWN])}{more}, not {wants}",
        "make it the same here, give it another name, or `vxagent host forget` a host that is gone for good",
    )

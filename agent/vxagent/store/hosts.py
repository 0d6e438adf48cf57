"""Hosts in the cluster: sessions, names and VTEPs."""

from __future__ import annotations

from contextlib import suppress

from vxagent.errors import ClusterError, Conflict
from vxagent.model.cluster import ClusterHost, Live
from vxagent.store.kv import Compare, Delete, KeyValue, Op, Put, Range, absent, unchanged
from vxagent.store.schema import VERSION, SchemaValue, encode, host_value, live_value, parse, parse_name, parse_schema
from vxagent.store.session import TTL_S, Session
from vxagent.store.under_session import TRIES, Found, UnderSession, new_op


class Hosts(UnderSession):
    """Who is in the cluster."""

    async def open(self, *, vtep: str | None, boot: str, ttl_s: int = TTL_S) -> Session:
        """Begin a session: this host lives, and ends tunnels at `vtep`.

        A session that this host left behind in the same life (`boot`) is ended first, as after a restart of the agent.

        Args:
            boot: names this life of the host and its agent: the same after the agent's restart, another one after the
                machine's, and for another agent on this machine.
            ttl_s: the engine takes the host for dead when it has not heard of it for so long.

        Raises:
            Conflict: another host, or this one before its machine was started anew, is alive under this name; or
                another host has this VTEP, alive or not. The message names it.
            ClusterRefused: the cluster's schema is one that this version does not know. It is left untouched.
        """
        me = Live(host=self._host, vtep=vtep, boot=boot)
        lease = 0
        try:
            for _ in range(TRIES):
                found = await self._read(*self._of_host(me))
                alive = self._alive(me, found, ttl_s)
                if alive is not None and alive.lease == lease:  # that answer had not come
                    return self._begun(alive.create_revision, lease)
                if alive is not None:
                    await self._kv.revoke(alive.lease)
                    continue
                lease = lease or await self._kv.grant(ttl_s)
                compares = self._compares(me, found)
                result = await self._ask(compares, self._puts(me, found, lease))
                if result.succeeded:
                    return self._begun(result.revision, lease)
        except BaseException:
            if lease:
                with suppress(ClusterError):
                    await self._kv.revoke(lease)
            raise
        raise self._contended(f"host {self._host}")

    async def hosts(self) -> tuple[tuple[ClusterHost, Live | None], ...]:
        """Every host that has been in the cluster and was not forgotten, with its life if it is alive."""
        known, alive = await self._read(self._keys.all("host"), self._keys.all("live"))
        lives = {live.host: live for live in (parse(self._keys, kv) for kv in alive) if isinstance(live, Live)}
        hosts = [host for host in (parse(self._keys, kv) for kv in known) if isinstance(host, ClusterHost)]
        return tuple((host, lives.get(host.host)) for host in hosts)

    def _of_host(self, me: Live) -> tuple[Range, ...]:
        keys = (self._keys.live(me.host), self._keys.schema, self._keys.host(me.host))
        return tuple(Range(key) for key in (*keys, *([] if me.vtep is None else [self._keys.vtep(me.vtep)])))

    def _compares(self, me: Live, found: Found) -> tuple[Compare, ...]:
        """Nothing of it has changed since it was read; nobody lives under this name."""
        _, *others = zip(self._of_host(me), found, strict=True)
        same = [unchanged(asked.key, kvs[0].mod_revision if kvs else 0) for asked, kvs in others]
        return absent(self._keys.live(me.host)), *same

    def _puts(self, me: Live, found: Found, lease: int) -> tuple[Op, ...]:
        _, schema, known, *taken = found
        host = ClusterHost(host=me.host, vtep=me.vtep)
        old = parse(self._keys, known[0]) if known else None
        ops: list[Op] = [Put(self._keys.live(me.host), live_value(me), lease)]
        if not schema:
            ops.append(Put(self._keys.schema, encode(SchemaValue(version=VERSION, id=new_op()))))
        if old != host:
            ops.append(Put(self._keys.host(me.host), host_value(host)))
        if me.vtep is not None and not taken[0]:
            ops.append(Put(self._keys.vtep(me.vtep), encode(me.host)))
        if isinstance(old, ClusterHost) and old.vtep not in (None, me.vtep):
            ops.append(Delete(Range(self._keys.vtep(str(old.vtep)))))
        return tuple(ops)

    def _alive(self, me: Live, found: Found, ttl_s: int) -> KeyValue | None:
        """The session that this host has left behind.

        Raises:
            Conflict, ClusterRefused: somebody is in the way.
        """
        alive, schema, _, *taken = found
        parse_schema(schema, self._name)
        holder = parse_name(taken[0]) if taken else ""
        if taken and taken[0] and holder != me.host:
            raise Conflict(
                f"VTEP {me.vtep} is host {holder}'s in cluster {self._name}",
                f"give this host another one or, if host {holder} is gone for good, have a connected one do "
                f"`vxagent host forget {holder}`",
            )
        if not alive:
            return None
        live = parse(self._keys, alive[0])
        if not isinstance(live, Live) or live.boot != me.boot or not alive[0].lease:
            vtep = f" with VTEP {live.vtep}" if isinstance(live, Live) and live.vtep else ""
            raise Conflict(
                f"another host{vtep} is alive as {me.host} in cluster {self._name}",
                f"give this one another name (host in vxagent.toml), or wait {ttl_s} s if its machine was started anew",
            )
        return alive[0]

    def _begun(self, revision: int, lease: int) -> Session:
        key = self._keys.live(self._host)
        self.session = Session(kv=self._kv, host=self._host, key=key, revision=revision, lease=lease)
        return self.session

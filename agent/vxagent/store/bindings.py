"""Bindings in the cluster: each step is one transaction on a port's record and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from vxagent.errors import ClusterAmbiguous, ClusterAway, Compacted, Conflict, NotFound, SessionLost, TooManyKeys
from vxagent.model.binding import Binding, Step, after, must_be_dead, rebound
from vxagent.model.cluster import Problem
from vxagent.store.binding_write import BindingWrite, write_binding
from vxagent.store.kv import KeyValue, Put, Range, unchanged
from vxagent.store.schema import parse_binding, parse_name
from vxagent.store.under_session import TRIES, Found, UnderSession, new_op

LOOKED_BACK = 64  # changes of a port since a request whose answer did not come

Keyed = tuple[KeyValue, ...]
Decide = Callable[[Binding | None, str], Binding | None]
Dead = Callable[[Binding], tuple[str, ...]]


def _nobody(binding: Binding) -> tuple[str, ...]:
    return ()


class Bindings(UnderSession):
    """Where ports run.

    `op` names a request that was made before: give that of a ClusterAmbiguous, so that it is not done twice.
    """

    async def bind(
        self, port: str, *, segments: Iterable[str], macs: Iterable[str] = (), ips: Iterable[str] = (), op: str = ""
    ) -> Binding:
        """The port runs on this host, in these segments, with these MACs and addresses.

        One that is bound here already is changed to what is given, if it is not migrating.

        Raises:
            Invalid: a value that can never be right.
            Conflict: the port is bound elsewhere, a MAC or address is another port's, or this host does not have a
                segment. The message names the holder. Or it has more of them than go into one transaction.
            WrongPhase: it migrates, and what is given differs.
        """
        wanted = Binding(
            id=port,
            segments=tuple(segments),
            macs=tuple(macs),
            ips=tuple(ips),
            owner=self._host,
        )

        def decide(old: Binding | None, op: str) -> Binding:
            named = replace(wanted, op=op)
            return named if old is None else rebound(old, named)

        return _still(await self._decide(port, op, decide, known=None if op else ()))  # most ports are new

    async def prepare(self, port: str, *, op: str = "") -> Binding:
        """This host is the next one. Raises NotFound, WrongPhase, Conflict (it lacks a segment)."""
        return await self._step(port, Step.PREPARE, op)

    async def switchover(self, port: str, *, op: str = "") -> Binding:
        """The VM leaves this host for the next one. The result's `revision` is what hosts acknowledge.

        Raises NotFound, WrongPhase.
        """
        return await self._step(port, Step.SWITCHOVER, op)

    async def hold(self, port: str, *, op: str = "") -> Binding:
        """This host, the next one, takes the VM's frames; the others may send them here.

        The result's `revision` is what they acknowledge. Raises NotFound, WrongPhase.
        """
        return await self._step(port, Step.HOLD, op)

    async def activate(self, port: str, *, op: str = "") -> Binding:
        """This host, the next one, is the owner. Raises NotFound, WrongPhase."""
        return await self._step(port, Step.ACTIVATE, op)

    async def record(self, port: str, *, op: str = "") -> Binding:
        """The same of a port that was switched over, and that this host has activated before. Raises as `activate`."""
        return await self._step(port, Step.RECORD, op)

    async def cancel(self, port: str, *, op: str = "") -> Binding:
        """It stays where it is. Raises NotFound, WrongPhase."""
        return await self._step(port, Step.CANCEL, op)

    async def unbind(self, port: str, *, op: str = "") -> None:
        """The port ends. One that is not there is no failure. Raises WrongPhase."""

        def decide(old: Binding | None, op: str) -> Binding | None:
            return old and after(old, Step.UNBIND, self._host, op)

        await self._decide(port, op, decide)

    async def evacuate(self, port: str, *, op: str = "") -> Binding:
        """This host takes the port of a dead one.

        The engine knows only that the host's agent is silent. That its VM is, somebody else must have made sure of.

        Raises:
            NotFound: no such port.
            Conflict: its owner, or the host that may have activated it, is alive; or this host lacks a segment.
        """
        return await self._step(port, Step.EVACUATE, op, lambda old: must_be_dead(old, self._host))

    async def drop(self, port: str, host: str, *, op: str = "") -> None:
        """A port of a dead host ends. One that is not that host's, or not there any more, is no failure.

        Raises:
            Conflict: the host is alive.
            WrongPhase: the port migrates.
        """

        def decide(old: Binding | None, op: str) -> Binding | None:
            return old if old is None or old.owner != host else after(old, Step.DROP, self._host, op)

        await self._decide(port, op, decide, dead=lambda old: must_be_dead(old, self._host))

    async def carry(self, port: str, luggage: bytes) -> bool:
        """Leave for the next host what it needs of a port; False: it is not bound here, or not any more."""
        put = Put(self._keys.carry(port), luggage)
        while (binding := await self.binding(port)) is not None and binding.owner == self._host:
            same = unchanged(self._keys.port(port), binding.revision)
            if (await self._change((same,), (put,))).succeeded:
                return True  # and else the next host has taken a step meanwhile
        return False

    async def carried(self, port: str) -> bytes | None:
        """What its owner has left for the next host."""
        (found,) = await self._read(Range(self._keys.carry(port)))
        return found[0].value if found else None

    async def binding(self, port: str) -> Binding | None:
        """The binding of a port, if there is one that can be read."""
        (found,) = await self._read(Range(self._keys.port(port)))
        parsed = parse_binding(self._keys, found[0]) if found else None
        return None if isinstance(parsed, Problem) else parsed

    async def bindings(self) -> tuple[Binding, ...]:
        """All of them that can be read, by id."""
        found = (await self._kv.range(self._keys.all("port"))).found
        parsed = (parse_binding(self._keys, kv) for kv in found)
        return tuple(binding for binding in parsed if not isinstance(binding, Problem))

    async def _step(self, port: str, step: Step, op: str, dead: Dead = _nobody) -> Binding:
        def decide(old: Binding | None, op: str) -> Binding | None:
            if old is None:
                raise NotFound("binding", port)
            return after(old, step, self._host, op)

        return _still(await self._decide(port, op, decide, dead=dead))

    async def _decide(
        self, port: str, op: str, decide: Decide, *, known: Keyed | None = None, dead: Dead = _nobody
    ) -> Binding | None:
        """Do what `decide` makes of the binding as it is, anew each time that another host comes before.

        Args:
            known: what the caller takes the port's key to be; None: read it.
            dead: which hosts must not be alive.
        """
        if known is None:
            (known,) = await self._read(Range(self._keys.port(port)))
        name = op or f"{new_op()}@{known[0].mod_revision if known else 0}"
        try:
            return await self._try(port, name, decide, known, dead, doubtful=bool(op))
        except ClusterAmbiguous as error:
            error.op = name
            raise

    async def _try(
        self, port: str, op: str, decide: Decide, known: Keyed, dead: Dead, *, doubtful: bool
    ) -> Binding | None:
        base = _begun(op)
        for _ in range(TRIES):
            old = self._parsed_binding(port, known)
            done = await self._done(known, op, base, look_back=doubtful)
            if done is not None:
                return done
            new = decide(old, op)
            if new is old:
                return old
            base = old.revision if old else 0
            write = write_binding(self._keys, self._host, port, old, new, dead(old) if old else ())
            try:
                changed = await self._change(write.compares, write.ops)
            except SessionLost as error:
                done = await self._done_before(error, port, op, base)
                if done is not None:
                    return done
                raise
            except TooManyKeys as error:
                raise _too_large(port, write) from error
            if changed.succeeded:
                return new and replace(new, revision=changed.revision)
            known, doubtful = changed.found[0], changed.doubtful
            if (known[0].mod_revision if known else 0) == base:
                await self._explain(port, write, changed.found)
        raise self._contended(f"port {port}")

    async def _done(self, known: Keyed, op: str, base: int, *, look_back: bool) -> Binding | None:
        """What a request left behind whose answer did not come, even if others have changed the port since.

        Args:
            known: the port's key as it is.
            base: what it made was made after this revision.
            look_back: read what the key was before, too.

        Raises:
            ClusterAmbiguous: the engine does not remember.
        """
        for _ in range(LOOKED_BACK):
            if not known or known[0].mod_revision <= base:
                return None
            binding = parse_binding(self._keys, known[0])
            if isinstance(binding, Binding) and binding.op == op:
                return binding
            if not look_back:
                return None
            try:
                known = (await self._kv.range(Range(known[0].key), known[0].mod_revision - 1)).found
            except Compacted:
                break
        raise ClusterAmbiguous(
            "it is not known any more whether the port was changed by this request", "see what it is now"
        )

    async def _done_before(self, error: SessionLost, port: str, op: str, base: int) -> Binding | None:
        """What was done before the session was lost."""
        if not error.doubtful:
            return None
        try:
            (known,) = await self._read(Range(self._keys.port(port)))
            return await self._done(known, op, base, look_back=True)
        except ClusterAway as away:
            raise ClusterAmbiguous("no answer came, and then the session was lost", "ask again") from away

    async def _explain(self, port: str, write: BindingWrite, found: Found) -> None:
        """Say why a change of the port was not made, unless the cause has gone since.

        Raises:
            Conflict: this is why.
        """
        lacking, alive, claim = write.in_the_way(found)
        if lacking is not None:
            raise Conflict(
                f"host {self._host} does not have segment {lacking}, which port {port} is in",
                "add the segment here first",
            )
        if alive is not None:
            raise Conflict(f"host {alive} is alive", f"port {port} stays there unless it is migrated")
        if claim is not None:
            await self._explain_claim(port, claim)

    async def _explain_claim(self, port: str, claim: KeyValue) -> None:
        kind, segment, value = self._keys.words(claim.key)
        holder = parse_name((claim,))
        binding = await self.binding(holder) if holder else None
        what = f"{kind.upper()} {value} is port {holder}'s"
        if binding is None or claim.key not in self._keys.claims(binding):
            raise Conflict(f"{what} (segment {segment}), which does not have it", f"remove the key {claim.key}")
        raise Conflict(
            f"{what} on host {binding.owner} (segment {segment})", f"take it from that port or give {port} another one"
        )

    def _parsed_binding(self, port: str, found: tuple[KeyValue, ...]) -> Binding | None:
        if not found:
            return None
        parsed = parse_binding(self._keys, found[0])
        if isinstance(parsed, Problem):
            raise Conflict(
                f"what the cluster holds of port {port} cannot be read ({parsed.why})", f"mend or remove {parsed.key}"
            )
        return parsed


def _too_large(port: str, write: BindingWrite) -> Conflict:
    return Conflict(
        f"port {port} has too many segments, MACs and addresses: it takes {write.keys} keys in one transaction",
        "give it fewer, or raise --max-txn-ops of etcd, 128 by default",
    )


def _begun(op: str) -> int:
    """The revision that a request began with, if we named it."""
    _, _, revision = op.rpartition("@")
    return int(revision) if revision.isdecimal() else 0


def _still(binding: Binding | None) -> Binding:
    """Of a step that no binding ends with."""
    assert binding is not None
    return binding

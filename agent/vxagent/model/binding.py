"""Bindings: which host a port runs on, and how that moves in a live migration.

        ┌──────────────── cancel (owner or next) ──────────────────────────────────────────┐
        ▼                                                                                  │
      bound ── prepare (next) ──► prepared ── switchover (owner) ──► switched ── hold (next) ──► held
        ▲                            │                                  │                    │
        └─ activate (next) ──────────┴──────────────────────────────────┴────────────────────┘   owner = next, epoch + 1

Held is the next host's word that it takes the VM's frames; only then do others send them there.

A binding begins as bound, by whoever binds it, and ends from bound, by its owner. When its owner is dead, somebody
else may take it (evacuate), or end it when that host is forgotten (drop). The table below is all that is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from vxagent.errors import Conflict, Invalid, WrongPhase
from vxagent.model.ids import check_ip, check_mac, check_name, check_range, check_unique

EPOCH_MAX = (1 << 63) - 1


class Phase(StrEnum):
    """How far a migration is. `bound`: there is none."""

    BOUND = "bound"
    PREPARED = "prepared"
    SWITCHED = "switched"
    HELD = "held"


class Step(StrEnum):
    """What a host may ask for once a port is bound."""

    PREPARE = "prepare"
    SWITCHOVER = "switchover"
    HOLD = "hold"
    ACTIVATE = "activate"
    RECORD = "record"
    CANCEL = "cancel"
    UNBIND = "unbind"
    EVACUATE = "evacuate"
    DROP = "drop"


class Role(StrEnum):
    """What a host is to a binding."""

    OWNER = "owner"
    NEXT = "next"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A port's claim to run on a host, as the cluster has it.

    Attributes:
        id: the port's id, unique in the cluster.
        segments: that it is in.
        macs: that it lists; nobody else in these segments may.
        ips: addresses and prefixes that it lists; the addresses are its own in these segments.
        owner: the host where it runs.
        next: the host where it is to run, while it migrates.
        phase: how far that is.
        epoch: how many owners there have been.
        op: who wrote it: a name that one request gave itself.
        revision: the store's, in which it was written; 0: in none yet. Not part of what it is.

    Raises:
        Invalid: a value that can never be right.
    """

    id: str
    segments: tuple[str, ...]
    macs: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    owner: str
    next: str | None = None
    phase: Phase = Phase.BOUND
    epoch: int = 1
    op: str = ""
    revision: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        check_name("port", self.id)
        check_name("owner", self.owner)
        check_range("epoch", self.epoch, 1, EPOCH_MAX)
        if not self.segments:
            raise Invalid("segment", None, f"port {self.id} is in none")
        check_unique("segment", tuple(check_name("segment", s) for s in self.segments))
        object.__setattr__(self, "macs", check_unique("mac", tuple(check_mac("mac", m) for m in self.macs)))
        object.__setattr__(self, "ips", check_unique("ip", tuple(check_ip("ip", a) for a in self.ips)))
        check_move(self.owner, self.next, self.phase)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of `ips`, those that are one address: nobody else may list them. A prefix may be many ports'."""
        return tuple(ip for ip in self.ips if "/" not in ip)

    def role(self, host: str) -> Role:
        """What the host is to it."""
        return Role.OWNER if host == self.owner else Role.NEXT if host == self.next else Role.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What the hosts of one segment are told of a binding. Attributes as of `Binding`, `port` being its id."""

    segment: str
    port: str
    owner: str
    next: str | None = None
    phase: Phase = Phase.BOUND
    epoch: int = 1
    macs: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    revision: int = 0

    def __post_init__(self) -> None:
        check_name("segment", self.segment)
        check_name("port", self.port)
        check_name("owner", self.owner)
        check_range("epoch", self.epoch, 1, EPOCH_MAX)
        object.__setattr__(self, "macs", tuple(check_mac("mac", m) for m in self.macs))
        object.__setattr__(self, "ips", tuple(check_ip("ip", a) for a in self.ips))
        check_move(self.owner, self.next, self.phase)


def check_move(owner: str, next_host: str | None, phase: Phase) -> None:
    """Refuse what no migration looks like.

    Raises:
        Invalid: it moves to nowhere, to where it is, or is bound and moves.
    """
    if (next_host is None) != (phase is Phase.BOUND):
        raise Invalid("next", next_host, f"does not go with phase {phase}")
    if next_host is not None and check_name("next", next_host) == owner:
        raise Invalid("next", next_host, "is the owner already")


def project(binding: Binding) -> tuple[Projection, ...]:
    """What each of its segments is told."""
    return tuple(
        Projection(
            segment=segment,
            port=binding.id,
            owner=binding.owner,
            next=binding.next,
            phase=binding.phase,
            epoch=binding.epoch,
            macs=binding.macs,
            ips=binding.ips,
            revision=binding.revision,
        )
        for segment in binding.segments
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where a step leads: to a phase or (None) to the binding's end; `takes`: the asker is the owner then."""

    to: Phase | None
    takes: bool = False


# (phase, step, role of the host that asks) → rule. Where phase and owner stay what they are there is nothing to do:
# it has been done already, by the same host.
_ALLOWED: dict[tuple[Phase, Step, Role], _Rule] = {
    (Phase.BOUND, Step.PREPARE, Role.OTHER): _Rule(Phase.PREPARED),
    (Phase.PREPARED, Step.PREPARE, Role.NEXT): _Rule(Phase.PREPARED),
    (Phase.PREPARED, Step.SWITCHOVER, Role.OWNER): _Rule(Phase.SWITCHED),
    (Phase.SWITCHED, Step.SWITCHOVER, Role.OWNER): _Rule(Phase.SWITCHED),
    (Phase.HELD, Step.SWITCHOVER, Role.OWNER): _Rule(Phase.HELD),
    (Phase.SWITCHED, Step.HOLD, Role.NEXT): _Rule(Phase.HELD),
    (Phase.HELD, Step.HOLD, Role.NEXT): _Rule(Phase.HELD),
    # From prepared, too: the guest may speak at its new host before anybody has told the old one.
    (Phase.PREPARED, Step.ACTIVATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.SWITCHED, Step.ACTIVATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.HELD, Step.ACTIVATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.BOUND, Step.ACTIVATE, Role.OWNER): _Rule(Phase.BOUND),
    # What ran before it could be told. That it had been switched over is why it ran: what is prepared is another move.
    (Phase.SWITCHED, Step.RECORD, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.HELD, Step.RECORD, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.BOUND, Step.RECORD, Role.OWNER): _Rule(Phase.BOUND),
    (Phase.PREPARED, Step.CANCEL, Role.OWNER): _Rule(Phase.BOUND),
    (Phase.PREPARED, Step.CANCEL, Role.NEXT): _Rule(Phase.BOUND),
    (Phase.SWITCHED, Step.CANCEL, Role.OWNER): _Rule(Phase.BOUND),
    (Phase.SWITCHED, Step.CANCEL, Role.NEXT): _Rule(Phase.BOUND),
    (Phase.HELD, Step.CANCEL, Role.OWNER): _Rule(Phase.BOUND),
    (Phase.HELD, Step.CANCEL, Role.NEXT): _Rule(Phase.BOUND),
    (Phase.BOUND, Step.UNBIND, Role.OWNER): _Rule(None),
    (Phase.BOUND, Step.EVACUATE, Role.OTHER): _Rule(Phase.BOUND, takes=True),
    (Phase.BOUND, Step.EVACUATE, Role.OWNER): _Rule(Phase.BOUND),
    (Phase.PREPARED, Step.EVACUATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.PREPARED, Step.EVACUATE, Role.OTHER): _Rule(Phase.BOUND, takes=True),
    (Phase.SWITCHED, Step.EVACUATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.SWITCHED, Step.EVACUATE, Role.OTHER): _Rule(Phase.BOUND, takes=True),
    (Phase.HELD, Step.EVACUATE, Role.NEXT): _Rule(Phase.BOUND, takes=True),
    (Phase.HELD, Step.EVACUATE, Role.OTHER): _Rule(Phase.BOUND, takes=True),
    (Phase.BOUND, Step.DROP, Role.OTHER): _Rule(None),
}


def after(binding: Binding, step: Step, by: str, op: str) -> Binding | None:
    """The binding after a step; the same object if there is nothing to do, None if it ends.

    Args:
        by: the host that asks. To evacuate and to drop, hosts must be dead, too: `must_be_dead` says which.
        op: the request's name.

    Raises:
        WrongPhase: it is not allowed at this point, or not to this host.
    """
    rule = _ALLOWED.get((binding.phase, step, binding.role(by)))
    if rule is None:
        raise WrongPhase(binding.id, binding.phase, step, _state(binding), _way_out(binding, step))
    if rule.to is None:
        return None
    owner = by if rule.takes else binding.owner
    if rule.to is binding.phase and owner == binding.owner:
        return binding
    host = None if rule.to is Phase.BOUND else (binding.next or by)
    epoch = binding.epoch + 1 if rule.takes else binding.epoch
    return replace(binding, owner=owner, next=host, phase=rule.to, epoch=epoch, op=op, revision=0)


def rebound(binding: Binding, wanted: Binding) -> Binding:
    """The binding with the segments, MACs and IPs that its owner wants now; the same object if it has them.

    Raises:
        Conflict: it is bound to another host than that of `wanted`.
        WrongPhase: it migrates.
    """
    if binding.owner != wanted.owner:
        raise Conflict(
            f"port {binding.id} is bound on host {binding.owner}",
            "give this one another --id, migrate that one here, or detach it there",
        )
    if all(getattr(binding, name) == getattr(wanted, name) for name in ("segments", "macs", "ips")):
        return binding
    if binding.phase is not Phase.BOUND:
        raise WrongPhase(binding.id, binding.phase, "change", _state(binding), _way_out(binding, None))
    return replace(binding, segments=wanted.segments, macs=wanted.macs, ips=wanted.ips, op=wanted.op, revision=0)


def must_be_dead(binding: Binding, by: str) -> tuple[str, ...]:
    """The hosts that must not be alive for `by` to evacuate or drop it.

    After the switchover the next host may have activated it already and not have been able to say so.
    """
    others = [binding.owner]
    if binding.phase in (Phase.SWITCHED, Phase.HELD) and binding.next is not None:
        others.append(binding.next)
    return tuple(host for host in others if host != by)


def _state(binding: Binding) -> str:
    match binding.phase:
        case Phase.BOUND:
            return f"it is bound on host {binding.owner} and does not migrate"
        case Phase.PREPARED:
            return f"host {binding.next} has prepared to take it from host {binding.owner}"
        case _:
            return f"host {binding.owner} has switched it over to host {binding.next}"


def _way_out(binding: Binding, step: Step | None) -> str:
    match binding.phase, step:
        case Phase.BOUND, Step.UNBIND:
            return f"detach it there, or `vxagent host evacuate {binding.owner}` if that host is dead"
        case Phase.BOUND, Step.PREPARE:
            return "it is here already"
        case Phase.BOUND, _:
            return f"`vxagent migrate prepare {binding.id}` on the host that it is to go to comes first"
        case Phase.PREPARED, Step.SWITCHOVER:
            return f"ask host {binding.owner}"
        case _, Step.ACTIVATE:
            return f"ask host {binding.next}"
        case _:
            return f"activate it on host {binding.next} or cancel the migration: `vxagent migrate cancel {binding.id}`"

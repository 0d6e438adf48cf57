"""Does the cluster answer, are its hosts there, and can what it holds be read?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vxagent.core.state import State
from vxagent.errors import ClusterAway
from vxagent.model.cluster import Problem
from vxagent.runtime.findings import Finding, Level

if TYPE_CHECKING:
    from vxagent.runtime.membership import Membership

LINES = 10
"""Of one kind; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What of the cluster matters.

    Attributes:
        away: what the engine does not do, "" where it answers or there is none.
        silent: hosts that do not answer this one.
        unreadable: keys.
    """

    away: str = ""
    silent: Sequence[str] = ()
    unreadable: Sequence[Problem] = ()


def gather_cluster(membership: Membership | None, state: State) -> ClusterFacts:
    """The facts of a host's part in its cluster, if it is in one."""
    if membership is None:
        return ClusterFacts()
    try:
        membership.check_connected()
        away = ""
    except ClusterAway as error:
        away = error.what
    silent = tuple(sorted(host for host, peer in state.remote.peers.items() if peer.silent))
    return ClusterFacts(away=away, silent=silent, unreadable=membership.unreadable)


def judge_cluster(facts: ClusterFacts) -> Iterator[Finding]:
    """Findings about the cluster. While it does not answer nothing is known anew of its hosts and keys."""
    if facts.away:
        what = f"{facts.away}: what is attached goes on; what needs the other hosts' consent is refused"
        mend = "see that its endpoints in vxagent.toml can be reached, and what the agent's log says"
        yield Finding(level=Level.WARN, what=what, mend=mend)
    yield from _first(_judge_silent(facts.silent), len(facts.silent), "more hosts of the cluster are silent")
    yield from _first(
        _judge_unreadable(facts.unreadable), len(facts.unreadable), "more keys of the cluster cannot be read"
    )


def _judge_silent(hosts: Iterable[str]) -> Iterator[Finding]:
    """Who is taken for dead by this host alone may have a broken underlay between them."""
    for host in hosts:
        what = (
            f"host {host} of the cluster is silent: nothing is flooded to it until it is back; its ports stay its own"
        )
        mend = f"mend it, or the way to its VTEP; if its VMs are dead, `vxagent host evacuate {host}`, "
        mend += f"and if it is gone for good, `vxagent host forget {host}`"
        yield Finding(level=Level.WARN, what=what, mend=mend)


def _judge_unreadable(problems: Iterable[Problem]) -> Iterator[Finding]:
    """What somebody else, or another version, has written into the engine."""
    mend = "mend or remove it, or use one version on all hosts; until then it counts as not being there"
    for problem in problems:
        what = f"{problem.key} in the cluster cannot be read: {problem.why}"
        yield Finding(level=Level.WARN, what=what, mend=mend)


def _first(findings: Iterator[Finding], count: int, more: str) -> Iterator[Finding]:
    """The first of so many, and how many more there are."""
    last = None
    for _, last in zip(range(LINES), findings, strict=False):
        yield last
    if last is not None and count > LINES:
        yield Finding(level=Level.WARN, what=f"{count - LINES} {more}", mend=last.mend)

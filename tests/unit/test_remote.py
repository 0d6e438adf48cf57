"""What the cluster says, in pure code: what its records come to, and where a VM is at each phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vxagent.core.census import Census, is_news, records_of
from vxagent.core.migration import HERE, Placement, placement, whereabouts
from vxagent.core.remote import NO_CLUSTER, Peer, Remote
from vxagent.core.remote_saved import REMOTE, load_remote, remote_document
from vxagent.core.tables import PortMode
from vxagent.errors import StoreError, WrongPhase
from vxagent.model.binding import Binding, Phase, Projection, Step, after, project
from vxagent.model.cluster import Bridge, Change, ClusterHost, ClusterSegment, Live, Presence, Record

HOSTS = ("hv1", "hv2", "hv3")
HV2 = ClusterHost(host="hv2", vtep="192.0.2.2")


def vm7(phase: Phase = Phase.BOUND, *, owner: str = "hv1", revision: int = 1) -> Projection:
    moving = "hv2" if phase is not Phase.BOUND else None
    return Projection(segment="blue", port="vm7", owner=owner, next=moving, phase=phase, revision=revision)


def told(*records: Record) -> list[Change]:
    return [Change(before=None, now=record) for record in records]


def gone(*records: Record) -> list[Change]:
    return [Change(before=record, now=None) for record in records]


# What records come to


EVERYTHING: tuple[Record, ...] = (
    ClusterHost(host="hv1", vtep="192.0.2.1"),
    HV2,
    ClusterHost(host="hv3"),
    ClusterSegment(name="blue", tenant="acme", mtu=1450),
    Live(host="hv1"),
    Live(host="hv2"),
    Presence(segment="blue", host="hv1"),
    Presence(segment="blue", host="hv2"),
    Presence(segment="red", host="hv2"),
    Presence(segment="blue", host="hv3"),
    Bridge(segment="blue", host="hv2"),
    vm7(),
)


def test_other_hosts_with_a_vtep_are_peers() -> None:
    census = Census("hv1", NO_CLUSTER)
    remote = census.take(NO_CLUSTER, told(*EVERYTHING))
    assert remote == Remote(
        on=True,
        peers={"hv2": Peer(vtep="192.0.2.2", segments=frozenset({"blue", "red"}))},
        told={("blue", "vm7"): vm7()},
        bridges={"blue": "hv2"},
    )
    assert census.live == {"hv1", "hv2"}
    assert census.take(remote, gone(*EVERYTHING)) == Remote(on=True)


@given(st.permutations(EVERYTHING), st.integers(0, len(EVERYTHING)))
def test_the_order_in_which_they_are_told_does_not_matter(records: list[Record], first: int) -> None:
    whole, parts = Census("hv1", NO_CLUSTER), Census("hv1", NO_CLUSTER)
    remote = parts.take(NO_CLUSTER, told(*records[:first]))
    remote = parts.take(remote, told(*records[:first]))  # as after a change that could not be made
    assert parts.take(remote, told(*records[first:])) == whole.take(NO_CLUSTER, told(*EVERYTHING))


def test_a_host_gets_its_vtep_later_and_loses_it() -> None:
    census = Census("hv1", NO_CLUSTER)
    bare = ClusterHost(host="hv2")
    remote = census.take(NO_CLUSTER, told(bare, Presence(segment="blue", host="hv2")))
    assert remote.peers == {}
    remote = census.take(remote, [Change(before=bare, now=HV2)])
    assert remote.peers == {"hv2": Peer(vtep="192.0.2.2", segments=frozenset({"blue"}))}
    assert census.take(remote, [Change(before=HV2, now=bare)]).peers == {}


def test_a_silent_host_is_heard_of_again_when_it_lives() -> None:
    silent = Remote(on=True, peers={"hv2": Peer(vtep="192.0.2.2", silent=True)})
    census = Census("hv1", silent)
    still = census.take(silent, told(Presence(segment="blue", host="hv2")))
    assert still.peers["hv2"].silent
    assert not census.take(still, told(Live(host="hv2"))).peers["hv2"].silent


def test_what_was_known_goes_on_and_can_be_told_again() -> None:
    remote = Census("hv1", NO_CLUSTER).take(NO_CLUSTER, told(*EVERYTHING))
    records = tuple(records_of(remote))
    assert Census("hv1", remote).take(remote, told(*records)) == remote
    assert Census("hv1", NO_CLUSTER).take(NO_CLUSTER, told(*records)) == remote


def test_a_host_that_was_forgotten_meanwhile_is_no_peer() -> None:
    known = Remote(on=True, peers={"hv2": Peer(vtep="192.0.2.2", segments=frozenset({"blue"}))})
    assert Census("hv1", known).take(known, gone(HV2)).peers == {}


def test_a_change_of_a_port_leaves_the_hosts_as_they_are() -> None:
    remote = Census("hv1", NO_CLUSTER).take(NO_CLUSTER, told(*EVERYTHING))
    assert Census("hv1", remote).take(remote, gone(vm7())).peers is remote.peers


def test_what_was_written_here_is_not_undone_by_what_came_before_it() -> None:
    """The watch is behind: activated at revision 13, it tells of 12."""
    census, held, bound = Census("hv2", NO_CLUSTER), vm7(Phase.HELD, revision=12), vm7(owner="hv2", revision=13)
    remote = Remote(on=True, told={("blue", "vm7"): bound})
    behind = Change(before=vm7(Phase.SWITCHED, revision=11), now=held)
    assert census.take(remote, [behind]).told == remote.told
    assert census.take(remote, [behind, Change(before=held, now=bound)]).told == remote.told


def test_a_store_that_begins_anew_is_believed() -> None:
    known = vm7(revision=500)
    remote = Remote(on=True, told={("blue", "vm7"): known})
    again = vm7(owner="hv3", revision=7)
    assert Census("hv2", remote).take(remote, [Change(before=known, now=again)]).told == {("blue", "vm7"): again}
    assert is_news(None, Change(before=None, now=again))
    assert Census("hv2", remote).take(remote, gone(known)).told == {}


def test_a_migration_that_is_over_leaves_nothing_behind() -> None:
    """Or the next one would find the port up, or draining, at once."""
    before = vm7(Phase.HELD, revision=12)
    both = frozenset({"vm7", "vm8"})
    start = Remote(on=True, told={("blue", "vm7"): before})
    for flag, remote in (
        ("leaving", replace(start, leaving=both)),
        ("drained", replace(start, drained=both)),
        ("arrived", replace(start, arrived=both)),
    ):
        after_it = Census("hv1", remote).take(remote, [Change(before=before, now=vm7(revision=13))])
        assert getattr(after_it, flag) == {"vm8"}
        kept = Census("hv1", remote).take(remote, [Change(before=before, now=replace(before, revision=13))])
        assert getattr(kept, flag) == {"vm7", "vm8"}


# Documents


def documents(remote: Remote) -> dict[tuple[str, str], dict[str, object]]:
    names = {
        "peer": remote.peers,
        "told": [f"{segment}/{port}" for segment, port in remote.told],
        "bridge": remote.bridges,
        "arrived": remote.arrived,
        "doubtful": [f"{kind}/{name}" for kind, name in remote.doubtful],
    }
    assert set(names) == set(REMOTE)
    wanted = chain.from_iterable(((kind, name) for name in found) for kind, found in names.items())
    return {(kind, name): doc for kind, name in wanted if (doc := remote_document(remote, kind, name)) is not None}


def test_all_but_what_begins_anew_is_saved() -> None:
    remote = Remote(
        on=True,
        peers={"hv2": Peer(vtep="192.0.2.2", segments=frozenset({"blue", "red"}), silent=True)},
        told={("blue", "vm7"): replace(vm7(Phase.HELD), macs=("02:00:00:00:00:07",), ips=("10.0.0.7",))},
        bridges={"blue": "hv2"},
        leaving=frozenset({"vm8"}),
        drained=frozenset({"vm8"}),
        arrived=frozenset({"vm7"}),
        doubtful=frozenset({("port", "vm9"), ("segment", "red")}),
    )
    assert load_remote(documents(remote)) == replace(remote, leaving=frozenset(), drained=frozenset())
    assert load_remote({}) is NO_CLUSTER


@pytest.mark.parametrize("kind", REMOTE)
def test_nothing_is_saved_of_what_is_not_there(kind: str) -> None:
    assert remote_document(NO_CLUSTER, kind, "blue/vm7") is None


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("peer", {"vtep": "192.0.2.2"}),
        ("told", {"segment": "blue", "port": "vm7", "owner": "hv1", "phase": "asleep", "macs": [], "ips": []}),
        ("bridge", {}),
    ],
)
def test_what_cannot_be_read_is_named(kind: str, document: dict[str, object]) -> None:
    with pytest.raises(StoreError, match=f"holds a {kind} blue/vm7 that cannot be read"):
        load_remote({(kind, "blue/vm7"): document})


def test_what_concerns_other_segments_can_be_left_out() -> None:
    remote = Census("hv1", NO_CLUSTER).take(NO_CLUSTER, told(*EVERYTHING, replace(vm7(), segment="red")))
    remote = remote.doubting([("segment", "red")])
    within = remote.within({"red"})
    assert within.told == {("red", "vm7"): replace(vm7(), segment="red")}
    assert within.peers == {"hv2": Peer(vtep="192.0.2.2", segments=frozenset({"red"}))}
    assert within.bridges == {}
    assert within.doubtful == {("segment", "red")}


# Where a VM is: the table in core/migration.py


DRAINING = Placement(mode=PortMode.DRAINING, via="hv2", redirect=True)
DRAINED = replace(DRAINING, copied=True)
BEGUN = replace(DRAINED, mode=PortMode.UP)


@pytest.mark.parametrize(
    ("phase", "owners", "nexts", "others"),
    [
        (Phase.PREPARED, HERE, Placement(mode=PortMode.STANDBY, via="hv1"), "hv1"),
        (Phase.SWITCHED, DRAINED, Placement(mode=PortMode.HOLDING), "hv1"),
        (Phase.HELD, DRAINING, Placement(mode=PortMode.HOLDING), "hv2"),
    ],
)
def test_each_phase_places_the_port(phase: Phase, owners: Placement, nexts: Placement, others: str) -> None:
    now = vm7(phase)
    remote = Remote(on=True, told={("blue", "vm7"): now})
    assert placement(remote, "hv1", "vm7") == owners
    assert placement(remote, "hv2", "vm7") == nexts
    assert whereabouts(now) == others
    assert placement(remote.receiving("vm7", here=True), "hv2", "vm7") == HERE
    begun = BEGUN if phase is Phase.PREPARED else owners
    assert placement(remote.letting("vm7", leave=True), "hv1", "vm7") == begun
    drained = DRAINED if phase is Phase.PREPARED else owners
    assert placement(remote.letting("vm7", leave=True, drained=True), "hv1", "vm7") == drained


def test_a_bound_port_is_up_at_its_owner_and_drains_where_it_was() -> None:
    remote = Remote(on=True, told={("blue", "vm7"): vm7(owner="hv2")})
    assert placement(remote, "hv2", "vm7") == HERE
    assert placement(remote, "hv1", "vm7") == DRAINING
    assert placement(NO_CLUSTER, "hv1", "vm7") == HERE
    still = Remote(on=True, told={("blue", "vm7"): vm7()}, leaving=frozenset({"vm7"}), drained=frozenset({"vm7"}))
    assert placement(still, "hv1", "vm7") == HERE  # there is nowhere to leave for


@dataclass
class Written:
    """A binding, and how it came to be that."""

    now: Binding
    step: Step | None = None
    before: Phase = Phase.BOUND


class View:
    """What one host knows, and its part in migrations: what it has begun, and what has come here.

    Attributes:
        heard: how much of the history it was told.
        knows: the last revision that it was told or has written.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.remote = replace(NO_CLUSTER, on=True)
        self.census = Census(name, self.remote)
        self.heard = 0
        self.knows = 0

    @property
    def told(self) -> Projection:
        return self.remote.ports["vm7"]

    @property
    def is_up(self) -> bool:
        return placement(self.remote, self.name, "vm7").mode is PortMode.UP

    @property
    def has_arrived(self) -> bool:
        """The engine does not know yet."""
        return "vm7" in self.remote.arrived


class Lagging(RuleBasedStateMachine):
    """One port, three hosts. The engine decides in some order; each host hears of it as late as it likes, and what it
    has written itself it knows at once. Hosts do as runtime/migrations.py has them do."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Written] = []
        self.views = {name: View(name) for name in HOSTS}

    @initialize(owner=st.sampled_from(HOSTS))
    def bind(self, owner: str) -> None:
        self.history = [Written(Binding(id="vm7", segments=("blue",), owner=owner, revision=1))]
        for view in self.views.values():
            self.hear(view, 1)

    @property
    def last(self) -> Binding:
        return self.history[-1].now

    def hear(self, view: View, number: int) -> None:
        """The watch tells it the next ones."""
        end = min(view.heard + number, len(self.history))
        for at in range(view.heard, end):
            (now,) = project(self.history[at].now)
            before = project(self.history[at - 1].now)[0] if at else None
            view.remote = view.census.take(view.remote, [Change(before=before, now=now)])
            view.knows = max(view.knows, now.revision)
        view.heard = end

    def ask(self, view: View, step: Step) -> bool:
        """The engine does it, or refuses."""
        old = self.last
        try:
            new = after(old, step, view.name, "")
        except WrongPhase:
            return False
        assert new is not None
        if new is not old:
            new = replace(new, revision=old.revision + 1)
            assert new.epoch - old.epoch == (new.owner != old.owner)
            self.history.append(Written(new, step, old.phase))
            event(f"{step} from {old.phase}")
        view.remote = view.remote.knowing(new)
        view.knows = new.revision
        return True

    @rule(name=st.sampled_from(HOSTS), step=st.sampled_from((Step.PREPARE, Step.HOLD, Step.CANCEL, Step.EVACUATE)))
    def asks(self, name: str, step: Step) -> None:
        self.ask(self.views[name], step)

    @rule()
    def goes_on(self) -> None:
        """Most steps that are drawn are refused: this one is not."""
        name, step = {
            Phase.BOUND: (next(host for host in HOSTS if host != self.last.owner), Step.PREPARE),
            Phase.PREPARED: (self.last.owner, Step.SWITCHOVER),
            Phase.SWITCHED: (str(self.last.next), Step.HOLD),
            Phase.HELD: (str(self.last.next), Step.ACTIVATE),
        }[self.last.phase]
        match step:
            case Step.SWITCHOVER:
                self.switches_over(name)
            case Step.ACTIVATE:
                self.activates(name, away=False)
            case _:
                self.ask(self.views[name], step)

    @rule(name=st.sampled_from(HOSTS))
    def switches_over(self, name: str) -> None:
        view = self.views[name]
        if (view.told.owner != name or view.told.next is None) and not self.ask(view, Step.SWITCHOVER):
            return
        view.remote = view.remote.letting("vm7", leave=True).letting("vm7", leave=True, drained=True)
        if not self.ask(view, Step.SWITCHOVER):
            view.remote = view.remote.letting("vm7", leave=False)

    @rule(name=st.sampled_from(HOSTS), away=st.booleans())
    def activates(self, name: str, away: bool) -> None:
        view = self.views[name]
        if view.told.next != name:
            return
        if view.told.phase is not Phase.PREPARED:
            view.remote = view.remote.receiving("vm7", here=True)
            event("it has arrived")
        if not away:
            self.records(name)

    @rule(name=st.sampled_from(HOSTS))
    def records(self, name: str) -> None:
        view = self.views[name]
        step = Step.RECORD if view.has_arrived else Step.ACTIVATE
        if view.told.next == name and not self.ask(view, step):
            event("it has arrived in vain" if view.has_arrived else "it is refused")
            view.remote = view.remote.receiving("vm7", here=False)

    @rule(name=st.sampled_from(HOSTS), number=st.integers(1, 4))
    def is_told(self, name: str, number: int) -> None:
        self.hear(self.views[name], number)

    @invariant()
    def who_has_heard_everything_is_right(self) -> None:
        for view in self.views.values() if self.history else ():
            if view.knows == self.last.revision and not view.has_arrived:
                assert view.told == project(self.last)[0]
                assert view.is_up == self.is_rightful(view)

    @invariant()
    def who_is_up_and_is_not_to_be_could_not_know(self) -> None:
        """Two ports are up at once only while the old owner has not heard of what was done without it, or who has
        activated on its own has not heard that it was not to. A VM that was switched over is up nowhere else."""
        for view in self.views.values() if self.history else ():
            if view.is_up and not self.is_rightful(view):
                unheard = [written for written in self.history if written.now.revision > view.knows]
                if view.has_arrived:
                    waits = self.last.next == view.name and self.last.phase is not Phase.PREPARED
                    assert waits or any(w.step in (Step.CANCEL, Step.EVACUATE) for w in unheard)
                else:
                    assert any(
                        w.step is Step.EVACUATE or (w.step, w.before) == (Step.ACTIVATE, Phase.PREPARED)
                        for w in unheard
                    )

    def is_rightful(self, view: View) -> bool:
        """It should be up, as the engine knows."""
        return self.last.owner == view.name and self.last.phase in (Phase.BOUND, Phase.PREPARED)

    def teardown(self) -> None:
        """Once all have heard all, and what has arrived is recorded, exactly one port is up: that of the owner, unless
        its VM is between two hosts."""
        if not self.history:
            return
        for view in self.views.values():
            if view.has_arrived:
                self.records(view.name)
        for view in self.views.values():
            self.hear(view, len(self.history))
        between = self.last.phase in (Phase.SWITCHED, Phase.HELD)
        assert [view.name for view in self.views.values() if view.is_up] == ([] if between else [self.last.owner])


TestLagging = Lagging.TestCase
TestLagging.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

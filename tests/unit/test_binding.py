"""Bindings: the table of phases, and what no order of steps can break."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.errors import Conflict, Invalid, WrongPhase
from vxagent.model.binding import Binding, Phase, Projection, Role, Step, after, must_be_dead, project, rebound

A, B, C = "hv1", "hv2", "hv3"
BOUND = Binding(id="vm7", segments=("blue", "red"), macs=("02:00:00:00:00:07",), ips=("10.0.0.7",), owner=A)
PREPARED = replace(BOUND, next=B, phase=Phase.PREPARED)
SWITCHED = replace(BOUND, next=B, phase=Phase.SWITCHED)

hosts = st.sampled_from([A, B, C])
steps = st.lists(st.tuples(st.sampled_from(Step), hosts), max_size=40)


def walk(*taken: tuple[Step, str]) -> Binding | None:
    binding: Binding | None = BOUND
    for number, (step, by) in enumerate(taken):
        assert binding is not None
        binding = after(binding, step, by, f"op{number}")
    return binding


def test_a_migration() -> None:
    assert walk((Step.PREPARE, B)) == replace(PREPARED, op="op0")
    assert walk((Step.PREPARE, B), (Step.SWITCHOVER, A)) == replace(SWITCHED, op="op1")
    moved = walk((Step.PREPARE, B), (Step.SWITCHOVER, A), (Step.ACTIVATE, B))
    assert moved == replace(BOUND, owner=B, epoch=2, op="op2")


def test_the_guest_may_speak_at_the_next_host_before_the_switchover() -> None:
    assert walk((Step.PREPARE, B), (Step.ACTIVATE, B)) == replace(BOUND, owner=B, epoch=2, op="op1")


@pytest.mark.parametrize("host", [A, B])
@pytest.mark.parametrize("binding", [PREPARED, SWITCHED])
def test_both_hosts_may_cancel_and_nothing_has_happened(binding: Binding, host: str) -> None:
    assert after(binding, Step.CANCEL, host, "op") == replace(BOUND, op="op")


@pytest.mark.parametrize(
    ("binding", "step", "by"),
    [(PREPARED, Step.PREPARE, B), (SWITCHED, Step.SWITCHOVER, A), (BOUND, Step.ACTIVATE, A), (BOUND, Step.EVACUATE, A)],
)
def test_what_is_done_already_is_left_as_it_is(binding: Binding, step: Step, by: str) -> None:
    assert after(binding, step, by, "another") is binding


def test_only_the_owner_ends_it_and_not_while_it_migrates() -> None:
    assert after(BOUND, Step.UNBIND, A, "op") is None
    for binding, by in ((BOUND, B), (PREPARED, A), (SWITCHED, A), (SWITCHED, B)):
        with pytest.raises(WrongPhase):
            after(binding, Step.UNBIND, by, "op")


@pytest.mark.parametrize(
    ("binding", "step", "by", "message"),
    [
        (
            BOUND,
            Step.SWITCHOVER,
            A,
            "cannot switchover port vm7: it is bound on host hv1 and does not migrate; "
            "`vxagent migrate prepare vm7` on the host that it is to go to comes first",
        ),
        (BOUND, Step.PREPARE, A, "it is here already"),
        (
            PREPARED,
            Step.PREPARE,
            C,
            "cannot prepare port vm7: host hv2 has prepared to take it from host hv1; "
            "activate it on host hv2 or cancel the migration: `vxagent migrate cancel vm7`",
        ),
        (PREPARED, Step.SWITCHOVER, B, "ask host hv1"),
        (SWITCHED, Step.ACTIVATE, A, "host hv1 has switched it over to host hv2; ask host hv2"),
        (PREPARED, Step.RECORD, B, "host hv2 has prepared to take it from host hv1"),
        (BOUND, Step.UNBIND, B, "detach it there, or `vxagent host evacuate hv1` if that host is dead"),
    ],
)
def test_what_the_table_does_not_have_is_refused_with_the_way_out(
    binding: Binding, step: Step, by: str, message: str
) -> None:
    with pytest.raises(WrongPhase) as raised:
        after(binding, step, by, "op")
    assert message in str(raised.value)
    assert (raised.value.port, raised.value.phase, raised.value.step) == ("vm7", binding.phase, step)


def test_who_must_be_dead_for_an_evacuation() -> None:
    assert must_be_dead(BOUND, C) == (A,)
    assert must_be_dead(PREPARED, C) == (A,)
    assert must_be_dead(SWITCHED, C) == (A, B)  # B may have activated it and been unable to say so
    assert must_be_dead(SWITCHED, B) == (A,)
    for binding in (BOUND, PREPARED, SWITCHED):
        assert after(binding, Step.EVACUATE, C, "op") == replace(BOUND, owner=C, epoch=2, op="op")


@given(steps)
def test_whatever_is_asked_for_there_is_one_owner_and_epochs_count_them(taken: list[tuple[Step, str]]) -> None:
    binding = BOUND
    for number, (step, by) in enumerate(taken):
        role = binding.role(by)
        try:
            new = after(binding, step, by, f"op{number}")
        except WrongPhase:
            continue
        if new is None:
            assert (step, role) in {(Step.UNBIND, Role.OWNER), (Step.DROP, Role.OTHER)}
            assert binding.phase is Phase.BOUND
            return
        assert (new.next is None) == (new.phase is Phase.BOUND)
        assert new.epoch - binding.epoch == (new.owner != binding.owner)
        assert new.owner in {binding.owner, by}
        if new.owner != binding.owner:
            assert step in {Step.ACTIVATE, Step.RECORD, Step.EVACUATE}
            assert step is Step.EVACUATE or role is Role.NEXT  # nobody takes what was not offered
        assert (new.op == f"op{number}") == (new is not binding)
        assert (new.segments, new.macs, new.ips, new.id) == (BOUND.segments, BOUND.macs, BOUND.ips, BOUND.id)
        binding = new


@given(steps)
def test_a_step_that_was_done_does_nothing_or_is_refused_when_it_comes_again(taken: list[tuple[Step, str]]) -> None:
    binding = BOUND
    for step, by in taken:
        try:
            new = after(binding, step, by, "first")
        except WrongPhase:
            continue
        if new is None:
            return
        try:
            assert after(new, step, by, "again") is new
        except WrongPhase:
            assert step is Step.CANCEL
        binding = new


def test_its_owner_changes_what_it_lists_while_it_does_not_migrate() -> None:
    wanted = replace(BOUND, macs=("02:00:00:00:00:08",), segments=("blue",), op="new")
    assert rebound(replace(BOUND, epoch=3, revision=9), wanted) == replace(wanted, epoch=3)
    assert rebound(SWITCHED, replace(BOUND, op="new")) is SWITCHED  # an agent that starts anew meanwhile
    with pytest.raises(WrongPhase, match="cannot change port vm7"):
        rebound(PREPARED, wanted)
    with pytest.raises(Conflict, match="port vm7 is bound on host hv1"):
        rebound(BOUND, replace(wanted, owner=B))


def test_each_segment_is_told_of_it() -> None:
    told = project(replace(SWITCHED, revision=7))
    assert [p.segment for p in told] == ["blue", "red"]
    assert told[1] == Projection(
        segment="red",
        port="vm7",
        owner=A,
        next=B,
        phase=Phase.SWITCHED,
        macs=("02:00:00:00:00:07",),
        ips=("10.0.0.7",),
        revision=7,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"next": B},
        {"phase": Phase.PREPARED},
        {"phase": Phase.SWITCHED, "next": A},
        {"segments": ()},
        {"segments": ("blue", "blue")},
        {"macs": ("01:00:00:00:00:01",)},
        {"ips": ("224.0.0.1",)},
        {"epoch": 0},
        {"owner": "no/host"},
        {"id": "no/port"},
    ],
)
def test_what_can_never_be_right_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        replace(BOUND, **wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_prefixes_are_nobodys_own() -> None:
    assert replace(BOUND, ips=("10.0.0.7", "fd00::/64", "10.0.1.0/24")).addresses == ("10.0.0.7",)

"""Migrations whose steps are asked for in any order, of any host, beside each other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from support.members import BLUE, MAC7, QUICK, Hosts, hosts_with, until
from support.migrating import DRAINING, HOLDING, STANDBY, UP, phase, states
from vxagent.errors import VxagentError
from vxagent.model.binding import Binding, Phase
from vxagent.store.schema import Keys, parse_binding

Step = tuple[int, str]
GOES_ON: Step = (0, "goes on")
STEPS = st.just(GOES_ON) | st.tuples(
    st.integers(0, 2), st.sampled_from(("prepare", "switchover", "activate", "cancel"))
)


def ask(hosts: Hosts, step: Step) -> Coroutine[Any, Any, object]:
    """Of one host, one thing; to go on is of whom and what comes next."""
    number, name = step
    if step == GOES_ON:
        binding = hosts.binding("vm7")
        assert binding is not None
        owns = int(binding.owner[-1]) - 1
        comes = int(binding.next[-1]) - 1 if binding.next else (owns + 1) % 3
        number, name = {Phase.BOUND: (comes, "prepare"), Phase.PREPARED: (owns, "switchover")}.get(
            binding.phase, (comes, "activate")
        )
    asked: Coroutine[Any, Any, object] = getattr(hosts.all[number].migrations, name)("vm7")
    return asked


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=1, max_size=10),
    st.lists(st.integers(1, 4), min_size=1, max_size=7),
)
@example([[GOES_ON], [GOES_ON], [(1, "activate"), (0, "cancel")], [GOES_ON], [GOES_ON], [GOES_ON]], [1])
@example([[(1, "prepare"), (2, "prepare")], [GOES_ON, (1, "cancel")], [GOES_ON], [GOES_ON, (1, "activate")]], [3, 1])
@example([[GOES_ON], [(1, "activate"), (0, "switchover")], [(0, "prepare")], [GOES_ON, (0, "activate")]], [2])
def test_whatever_is_asked_of_whom_a_vm_has_one_owner_and_one_port_that_is_up(
    batches: list[list[Step]], turns: list[int]
) -> None:
    """The steps of a batch run beside each other, with as many turns of the event loop to each call of the engine."""

    async def main() -> None:
        async with hosts_with(3, BLUE, waits=replace(QUICK, linger_s=0.0)) as hosts:
            await hosts.all[0].attach("vm7", "tap0", macs=(MAC7,))
            await at_rest(hosts)
            later = itertools.cycle(turns)

            def turn() -> int:
                """At each call of the engine: a VM that was switched over is up at one host at most."""
                if phase(hosts) in (Phase.SWITCHED, Phase.HELD):
                    assert states(hosts).count(UP) <= 1, states(hosts)
                return next(later)

            for host in hosts.all:
                host.kv.turns = turn
            for batch in batches:
                said = await asyncio.gather(*(ask(hosts, step) for step in batch), return_exceptions=True)
                for (_, step), answer in zip(batch, said, strict=True):
                    event(f"{step}: {'refused' if isinstance(answer, BaseException) else 'done'}")
                    assert not isinstance(answer, BaseException) or isinstance(answer, VxagentError), answer
                await at_rest(hosts)
            check_history(hosts)

    asyncio.run(main())


def check_history(hosts: Hosts) -> None:
    """Each owner but the first one has become so by one step of its own."""
    keys = Keys("test")
    written = [event.kv for event in hosts.engine.history if event.kv.key == keys.port("vm7")]
    bindings = [parse_binding(keys, kv) for kv in written]
    for before, now in itertools.pairwise(bindings):
        assert isinstance(before, Binding)
        assert isinstance(now, Binding)
        assert now.epoch - before.epoch == (now.owner != before.owner)
        assert now.owner in (before.owner, before.next)


async def at_rest(hosts: Hosts) -> None:
    """All hosts have heard of all, and each has what it is to have."""
    modes = {
        Phase.BOUND: (UP, None),
        Phase.PREPARED: (UP, STANDBY),
        Phase.HELD: (DRAINING, HOLDING),  # nobody stays at `switched`: the next host holds by itself
    }

    def is_so() -> bool:
        binding = hosts.binding("vm7")
        assert binding is not None
        told = [host.state.remote.told.get(("blue", "vm7")) for host in hosts.all]
        if any(known is None or known.revision != binding.revision for known in told) or binding.phase not in modes:
            return False
        mode = {binding.owner: modes[binding.phase][0], binding.next: modes[binding.phase][1]}
        return states(hosts) == [mode.get(host.name) for host in hosts.all]

    await until(is_so)

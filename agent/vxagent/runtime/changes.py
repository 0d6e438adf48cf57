"""Changes of the switch, one at a time, in the order in which they were asked for.

    make ─► draft ─► plan ─► effects (a thread of their own) ─► commit

The switch is touched by the event loop's thread alone, so it needs no lock; what reads or changes the kernel runs in
two pools: one thread for changes, so that they keep their order, and others for reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from vxagent.core.effects import Effect
from vxagent.core.plan import Plan
from vxagent.core.state import State
from vxagent.core.switch import Draft, Switch
from vxagent.errors import Refused, VxagentError
from vxagent.runtime.executor import Executor
from vxagent.runtime.losses import EgressLosses

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 2


class Agreed(Protocol):
    """What others have agreed to."""

    async def withdraw(self) -> None:
        """It was not done."""

    async def settle(self) -> None:
        """It was done."""


class Consent(Protocol):
    """Whom a change is to be agreed with before it is made."""

    async def ask(self, old: State, new: State) -> Agreed:
        """Ask them. Raises VxagentError: they do not."""


class Changes:
    """Holds the switch, and lets in one change after the other.

    Methods that say "in turn" must be called from work that has its turn, inside `in_turn`.

    Attributes:
        switch: what is desired and what is done.
        executor: applies effects.
        losses: what devices lost since they were attached.
        progress: whether the change that has its turn comes along.
    """

    def __init__(self, switch: Switch, executor: Executor, losses: EgressLosses) -> None:
        self.switch = switch
        self.executor = executor
        self.losses = losses
        self.progress = executor.progress
        self._turn = asyncio.Lock()  # gives turns in the order in which they were asked for
        self._ending = False
        self._changing = ThreadPoolExecutor(1, "changes")
        self._reading = ThreadPoolExecutor(READERS, "reads")

    async def in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` when its turn comes, to its end even when the caller goes away.

        Raises:
            Refused: the agent is ending.
        """

        async def run() -> T:
            async with self._turn:
                self.check_running()
                with self.progress.working():
                    return await work()

        task = asyncio.create_task(run())
        task.add_done_callback(_heard)
        try:
            return await asyncio.shield(task)
        finally:
            # The task has the error, whose traceback has this frame: nobody but the garbage collector would let go of
            # the programs and maps that were being made.
            del task

    async def run(self, make: Callable[[Draft], T], consent: Consent | None = None) -> T:
        """In turn: make one change of the switch; return what `make` returned, once it is done.

        Args:
            consent: whom it is to be agreed with.

        Raises:
            VxagentError: refused or failed; nothing has changed then.
        """
        draft = self.switch.draft()
        result = make(draft)
        plan = draft.plan()
        if consent is None:
            await self.perform(plan)
            return result
        agreed = await consent.ask(draft.base, plan.state)
        try:
            await self.perform(plan)
        except BaseException:
            await agreed.withdraw()
            raise
        await agreed.settle()
        return result

    async def perform(self, plan: Plan) -> None:
        """In turn: apply a plan's effects, then make its state the switch's. Raises VxagentError."""
        if plan.effects:
            await self.blocking(partial(self.apply, plan.effects))
        self.switch.commit(plan)

    def apply(self, effects: Sequence[Effect]) -> None:
        """Apply effects, all or nothing. Blocks: call it inside `blocking`. Raises VxagentError."""
        self.executor.run(effects)
        self.losses.follow(effects)

    async def apply_for(self, port: str, effects_of_port: Callable[[State, str], Iterable[Effect]]) -> None:
        """When its turn comes: apply what follows from what is desired of a port, if this host has it then.

        Raises:
            HostError: nothing is done.
        """

        async def work() -> None:
            state = self.switch.state
            effects = tuple(effects_of_port(state, port)) if port in state.ports else ()
            await self.blocking(partial(self.apply, effects))

        await self.in_turn(work)

    async def blocking(self, fn: Callable[[], T]) -> T:
        """Call what changes the kernel, off the event loop."""

        def run() -> T:
            with self.progress.working():
                return fn()

        return await asyncio.get_running_loop().run_in_executor(self._changing, run)

    async def reading(self, fn: Callable[[], T]) -> T:
        """Call what only reads, off the event loop and beside the changes.

        Raises:
            Refused: the agent is ending.
        """
        self.check_running()
        return await asyncio.get_running_loop().run_in_executor(self._reading, fn)

    def check_running(self) -> None:
        """Refuse when the agent is ending. Raises Refused."""
        if self._ending:
            raise Refused("the agent is ending", "start it with `vxagent up`")

    async def end(self, closes: Sequence[Callable[[], None]]) -> None:
        """In turn: let nobody in any more; when the last reader is gone, call `closes` and end the threads."""
        self._ending = True
        await asyncio.to_thread(self._reading.shutdown)
        for close in closes:
            try:
                await self.blocking(close)
            except Exception as error:
                log_failed("end", error)
        self._changing.shutdown()


def log_failed(what: str, error: Exception) -> None:
    """One line for what may happen, a trace for what must not."""
    log.error("%s: %s", what, error, exc_info=None if isinstance(error, VxagentError) else error)


def _heard(task: asyncio.Task[Any]) -> None:
    """Whoever waited may be gone; then nobody is to be told how it ended."""
    if not task.cancelled():
        task.exception()

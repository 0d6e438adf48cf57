"""A VM that goes from host to host while agents die, and what must be true all the same.

Whoever asks for a step asks again until it is done, as people and hooks do; an agent that has died is started again in
between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from support.clustered import eventually, migrate
from support.fleet import Host
from support.journeys import Journey
from support.mortal import Mortal, never_up_twice
from support.picture import Picture, differences, picture
from vxagent.errors import VxagentError
from vxagent.model.binding import Binding, Phase

MANY = 1_000_000
TRIES = 5
SHORT = 500  # frames, of the queue of a device


class Perils:
    """A journey under which agents die.

    Attributes:
        journey: it.
    """

    def __init__(self, journey: Journey) -> None:
        self.journey = journey
        self._fleet = journey.fleet
        self._mortals = {host.name: Mortal(host) for host in (journey.at, journey.other)}

    def steps_of(self, do: Callable[[], object]) -> dict[str, int]:
        """Do something; return how many steps each host's agent took."""
        for mortal in self._mortals.values():
            mortal.die_after(MANY)
        do()
        return {name: MANY - mortal.spare() for name, mortal in self._mortals.items()}

    def dying(self, host: Host, after: int, do: Callable[[], object]) -> None:
        """Do something during which this host's agent dies, after so many steps."""
        mortal = self._mortals[host.name]
        mortal.die_after(after)
        do()
        mortal.spare()

    # Steps, taken until they are done

    def prepare(self) -> None:
        """The other host awaits it, with a device that keeps few frames before that host's agent sees to it."""
        journey = self.journey
        journey.vm.await_at(journey.other.switch)
        journey.other.switch.ip("link", "set", journey.port, "txqueuelen", str(SHORT))
        self._ask(journey.other, "prepare", ifname=journey.port)

    def switch_over(self) -> None:
        """And it is about to stand still."""
        self._ask(self.journey.at, "switchover")

    def activate(self) -> None:
        """It goes on there; nothing of it is left where it was."""
        self.journey.vm.stand_still()
        self._ask(self.journey.other, "activate")
        self.journey.go_on(says_so=False)
        self.rest()

    def cancel(self, host: Host) -> int:
        """Asked of this one, it has never stood still; return the frames that were held for it at the other one."""
        self._ask(host, "cancel", unless=lambda: self._binding().phase is Phase.BOUND)
        self.rest()
        return self.journey.vm.stay()

    def rest(self) -> None:
        """Wait until it is where it is to be, the other host has nothing left of it, and all know."""
        journey = self.journey

        def is_so() -> bool:
            self._raise()
            binding = self._binding()
            if (binding.owner, binding.phase) != (journey.at.name, Phase.BOUND):
                return False
            return self._state(journey.at) == "up" and self._is_gone(journey.other)

        eventually(is_so, f"{journey.port} is on {journey.at.name} alone")
        journey.fleet.known(journey.segment, journey.vm.mac, journey.at)

    def _is_gone(self, host: Host) -> bool:
        """What lingers there is taken away, as people may do who do not want to wait for it."""
        if self._state(host) is None:
            return True
        self._try(lambda: host.client.change("DELETE", "v1", "ports", self.journey.port))
        return False

    def _state(self, host: Host) -> str | None:
        rows = self._try(lambda: host.client.get("v1", "ports")) or []
        return next((str(row["state"]) for row in rows if row["id"] == self.journey.port), None)

    def _ask(self, host: Host, step: str, *, unless: Callable[[], bool] = lambda: False, **body: Any) -> None:
        for _ in range(TRIES):
            try:
                migrate(host, step, self.journey.port, **body)
            except VxagentError:
                if not self._raise() and not unless():
                    raise
            else:
                self._raise()
                return
            if unless():
                return
        raise AssertionError(f"{step} is not done after {TRIES} tries")

    def _try(self, ask: Callable[[], Any]) -> Any:
        """What an agent answers; None: it does not, or not now."""
        try:
            return ask()
        except VxagentError:
            self._raise()
            return None

    def _raise(self) -> bool:
        """Start the agents again that have died; whether any had."""
        return sum(mortal.raised() for mortal in self._mortals.values()) > 0

    def _binding(self) -> Binding:
        return self._fleet.stored.history(self.journey.port)[-1]

    # What is true

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Meanwhile one host owns the port, and one at most has it up."""
        journey = self.journey
        before = len(self._fleet.stored.history(journey.port))
        with never_up_twice((journey.at, journey.other), journey.port):
            yield
        assert_one_owner(self._fleet.stored.history(journey.port)[before - 1 :])

    def pictures(self) -> dict[str, Picture]:
        """Of all hosts and of the engine, at rest."""
        found = {host.name: self._picture(host) for host in self._fleet.hosts}
        return {**found, "engine": {"keys": self._keys()}}

    def assert_like(self, wanted: dict[str, Picture], when: str) -> None:
        """Wait until everything is as in the pictures. Raises AssertionError: it does not become so."""
        found: list[str] = []

        def alike() -> bool:
            now = self.pictures()
            found[:] = [f"{name}: {what}" for name in wanted for what in differences(now[name], wanted[name])]
            return not found

        try:
            eventually(alike)
        except TimeoutError:
            raise AssertionError("\n".join([when, *found])) from None

    def _picture(self, host: Host) -> Picture:
        found = picture(host)
        if self.journey.port in found["devices"]:
            found["devices"][self.journey.port]["mac"] = "any"  # another device each time
        counted = [key for key in found["maps"] if key.split()[0] in ("traffic", "drops")]
        for key in counted:  # streams run only now and then
            del found["maps"][key]
        for name, document in found["saved"].items():
            if name.startswith("told "):
                document.update(revision="any", epoch="any")
        return found

    def _keys(self) -> dict[str, str]:
        """What the engine holds of the port."""
        port = self.journey.port
        keys = (key for key in self._fleet.stored.all() if port in key.split("/"))
        return dict.fromkeys(keys, "there")


def assert_one_owner(told: Sequence[Binding]) -> None:
    """Of all that a binding has been: each owner was awaited by the one before it, and has an epoch of its own."""
    for before, now in pairwise(told):
        assert now.epoch - before.epoch == (now.owner != before.owner), (before, now)
        assert now.owner in (before.owner, before.next), (before, now)

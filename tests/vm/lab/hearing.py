"""Who hears a ping, among VMs in guests and on this machine. Each listens at its own device."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol, TypeVar

from vm.lab.channel import Result
from vm.lab.guest import GuestError
from vm.lab.traffic import Host, ping
from vxagent.lab.waiting import wait_until

K = TypeVar("K")

EVERYBODY, NOBODY = "10.0.0.255", "10.0.0.77"
LISTEN_TIMEOUT_S = 120
LAST = "5a"  # what pings are filled with after which nobody listens any more


class Ear(Host, Protocol):
    """Whoever can run the lab's scripts."""

    def script(self, file: str) -> str:
        """See Inside.script."""


class Hearing:
    """Counts the frames of a VM's `eth0` that are pings filled with one byte, from `wait` on until the VM has sent one
    filled with LAST or got it.

    Args:
        vm: whose.
        pattern: the byte, in hex.
    """

    def __init__(self, vm: Ear, pattern: str) -> None:
        self._vm = vm
        self._told = f"/tmp/hearing-{secrets.token_hex(4)}"
        command = f"{vm.script('hear.py')} eth0 {pattern * 16} {LAST * 16} {self._told}"
        self._heard: Future[Result] = vm.begin(command)

    def wait(self) -> None:
        """Wait until it listens."""
        there = f"[ -e {self._told} ]"
        wait_until(
            lambda: self._vm.sh(there, check=False).code == 0, within=LISTEN_TIMEOUT_S, what=f"{self._vm.name} listens"
        )

    def count(self) -> int:
        """How many there were; the frame that ends it must be under way."""
        heard = self._heard.result(LISTEN_TIMEOUT_S)
        self._vm.sh(f"rm -f {self._told}")
        if heard.code != 0:
            raise GuestError(f"{self._vm.name}: {heard.output}")
        return int(heard.output)


def who_hears(vms: Mapping[K, Ear], sender: K, mac: str, *, count: int = 3) -> dict[K, int]:
    """How many pings of one VM come to each other one, for those to whom any come.

    Args:
        vms: all that listen, and the sender, by any key; in 10.0.0.0/24.
        sender: pings everybody, and an address that nobody has.
        mac: where he takes that address to be.
        count: how many of each.
    """
    origin, ears = vms[sender], {key: vm for key, vm in vms.items() if key != sender}
    heard = {key: Hearing(vm, "a5") for key, vm in ears.items()}
    for hearing in heard.values():
        hearing.wait()
    origin.sh(f"ip neighbour replace {NOBODY} lladdr {mac} dev eth0")
    ping(origin, EVERYBODY, count=count, more="-b -p a5")
    ping(origin, NOBODY, count=count, more="-p a5")
    ends = [vm.begin(f"ping -c 1 -W 1 -b -p {LAST} {EVERYBODY}") for vm in ears.values()]  # whoever is not connected
    counts = {key: hearing.count() for key, hearing in heard.items()}
    for end in ends:
        end.result(LISTEN_TIMEOUT_S)
    return {key: found for key, found in counts.items() if found}

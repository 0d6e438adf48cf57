"""Traffic between guests and namespaces in them. What counts is what the receiver got."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from vm.lab.channel import Result
from vm.lab.guest import GuestError
from vxagent.lab.waiting import wait_until

MEGABYTE = 1 << 20
PORT = 5001
_ANSWERED = re.compile(r"(\d+) (?:packets )?received")


class Host(Protocol):
    """Whoever has a shell and a network stack: a guest, or a namespace in one.

    Attributes:
        name: by which errors call it.
    """

    name: str

    def sh(self, script: str, *, check: bool = True) -> Result:
        """See Guest.sh."""

    def begin(self, script: str) -> Future[Result]:
        """See Guest.begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagrams:
    """What became of UDP datagrams at their receiver: how many never came, came behind a later one, and came again."""

    lost: int
    late: int
    copies: int


def ping(source: Host, address: str, *, count: int = 3, size: int = 56, more: str = "") -> int:
    """How many echo requests with so many bytes of payload were answered, each within two seconds."""
    result = source.sh(f"ping -c {count} -i 0.2 -W 2 -s {size} {more} {address}", check=False)
    answered = _ANSWERED.search(result.output)
    if answered is None:
        raise GuestError(f"{source.name}: ping says {result.output.strip()}")
    return int(answered[1])


def bulk_tcp(sender: Host, receiver: Host, address: str, *, amount: int = 8 * MEGABYTE) -> int:
    """Bytes that the receiver got over one TCP connection, each of them compared with what was sent.

    Raises:
        GuestError: nobody got through, or what arrived is not what was sent.
    """
    sink = receiver.begin(f"bulk sink {PORT}")
    _wait_listening(receiver, PORT)
    poured = sender.sh(f"bulk pour {address} {PORT} {amount}", check=False)
    took: Result = sink.result(40)
    if took.code != 0:
        raise GuestError(f"{sender.name} to {receiver.name}: {poured.output}{took.output}")
    return int(took.output)


def datagrams(
    sender: Host, receiver: Host, address: str, *, size: int = 1400, count: int = 100, rate: int = 100
) -> Datagrams:
    """Send `count` UDP datagrams of so many bytes, `rate` in a second, and wait until they have come or none comes.

    All of their frames together should fit into each queue on the way (a tap's has 1,000): then none is lost because
    somebody waits for a CPU. Every byte is compared.

    Raises:
        GuestError: they could not be sent, or one that arrived is not what was sent.
    """
    caught = receiver.begin(f"spray catch {PORT} {count} {size}")
    _wait_open(receiver, "udp", PORT)
    thrown = sender.sh(f"spray throw {address} {PORT} {count} {size} {rate}", check=False)
    took: Result = caught.result(40)
    if thrown.code != 0 or took.code != 0:
        raise GuestError(f"{sender.name} to {receiver.name}: {thrown.output}{took.output}")
    received, late, copies = map(int, took.output.split())
    return Datagrams(lost=count - received, late=late, copies=copies)


def _wait_listening(guest: Host, port: int) -> None:
    """Wait until somebody does: there is a socket in state LISTEN."""
    _wait_open(guest, "tcp", port, state="0A")


def _wait_open(guest: Host, protocol: str, port: int, state: str = "..") -> None:
    """Wait until there is a socket of this port and no peer, in a state of <net/tcp_states.h>."""
    there = f"grep -q ':{port:04X} [0-9A-F]*:0000 {state}' /proc/net/{protocol} /proc/net/{protocol}6"
    wait_until(lambda: guest.sh(there, check=False).code == 0, what=f"{guest.name} listens on {port}")

"""Hosts that are silent: nothing is flooded to them until they are back."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from vxagent.core.remote import Peer
from vxagent.core.switch import Draft
from vxagent.errors import VxagentError
from vxagent.runtime.changes import Changes, log_failed

log = logging.getLogger(__name__)

PROBED_PORT = 4789  # by TCP, where VXLAN has UDP: no host listens there
TRIES = 3  # before a host is taken for dead

_IP_RECVERR = 11  # <linux/in.h>
_EXTENDED_ERR = struct.Struct("=IBBBBII")  # <linux/errqueue.h>: errno, origin, type, code, pad, info, data
_SOCKADDR = 16
_FORBIDDEN = frozenset({9, 10, 13})  # ICMP codes of RFC 1812, 5.2.7.1: administratively prohibited


class Silence:
    """Finds those that the engine does not take for alive and that do not answer either. An agent that has died does
    not make its host one of them; and who answers again is none of them any more, with an agent or without.

    Args:
        changes: of this host's switch, which has the others as its peers.
        answers: whether the host that has this VTEP is there; None: that cannot be said, and it stays what it is.
        silent_s: for how long the engine has to have lost a host before that is asked.
    """

    def __init__(self, changes: Changes, answers: Callable[[str], Awaitable[bool | None]], silent_s: float) -> None:
        self._changes = changes
        self._answers = answers
        self._silent_s = silent_s
        self._lost_at: dict[str, float] = {}

    async def listen(self, live: Callable[[], Collection[str]], every_s: float) -> None:
        """Look again and again.

        Args:
            live: hosts that the engine takes for alive; the census has them silent no longer.
        """
        while True:
            await asyncio.sleep(every_s)
            await self._look(live)

    async def _look(self, live: Callable[[], Collection[str]]) -> None:
        """Once, at all of them at the same time: many hosts may have gone with their rack."""
        peers = self._changes.switch.state.remote.peers
        alive, now = live(), asyncio.get_running_loop().time()
        for host in [host for host in self._lost_at if host not in peers or host in alive]:
            del self._lost_at[host]
        lost = {host: peer for host, peer in peers.items() if host not in alive}
        asked = {h: p for h, p in lost.items() if p.silent or now - self._lost_at.setdefault(h, now) >= self._silent_s}
        await asyncio.gather(*(self._ask(host, peer, live) for host, peer in asked.items()))

    async def _ask(self, host: str, peer: Peer, live: Callable[[], Collection[str]]) -> None:
        there = await self._answers(peer.vtep)
        if there is None or there is not peer.silent or host in live():
            return
        if there:
            log.info("cluster: host %s answers again; it gets what is flooded", host)
        else:
            log.warning("cluster: host %s does not answer; nothing is flooded to it until it is back", host)
        try:
            await self._mark(host, live, silent=not there)
        except VxagentError as error:  # there is a next look
            log_failed(f"what is flooded to host {host}", error)

    async def _mark(self, host: str, live: Callable[[], Collection[str]], *, silent: bool) -> None:
        def mark(draft: Draft) -> None:
            remote = draft.state.remote
            if host in remote.peers and host not in live():
                peers = {**remote.peers, host: replace(remote.peers[host], silent=silent)}
                draft.cluster_says(replace(remote, peers=peers))

        await self._changes.in_turn(lambda: self._changes.run(mark))


async def is_there(vtep: str, *, within_s: float) -> bool | None:
    """Whether somebody is at this address: what listens nowhere refuses a connection, and so tells.

    Args:
        within_s: for each of a few tries; longer than ARP and ND take to find out that nobody is there.

    Returns:
        False: the network says that there is nobody (ICMP host unreachable). None: nobody says anything, as where a
        firewall drops what it does not know.
    """
    for _ in range(TRIES):
        there = await _ask(vtep, within_s)
        if there is not False:
            return there
    return False


async def _ask(vtep: str, within_s: float) -> bool | None:
    family = socket.AF_INET6 if ":" in vtep else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        if family == socket.AF_INET:
            asking.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        try:
            async with asyncio.timeout(within_s):
                await asyncio.get_running_loop().sock_connect(asking, (vtep, PROBED_PORT))
        except ConnectionError:
            return True
        except TimeoutError:
            return None
        except OSError as error:
            return None if error.errno != errno.EHOSTUNREACH or _is_forbidden(asking) else False
    return True


def _is_forbidden(asking: socket.socket) -> bool:
    """Whether a firewall has said so, of which the kernel makes the same error."""
    try:
        _, told, _, _ = asking.recvmsg(0, socket.CMSG_SPACE(_EXTENDED_ERR.size + _SOCKADDR), socket.MSG_ERRQUEUE)
    except OSError:
        return False
    codes = [_EXTENDED_ERR.unpack_from(data)[3] for _, kind, data in told if kind == _IP_RECVERR]
    return not _FORBIDDEN.isdisjoint(codes)

"""A tap whose VM is to come keeps what comes for it, however short its queue was.

host1: where the VM is     host2: its tap, of 500 frames, which nobody reads yet     host3: who sends to it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from support.clustered import Clustered, migrate
from support.fleet import Host
from support.lan import mac_of
from vxagent.core.queues import WAITING_FRAMES
from vxagent.lab.frames import EXPERIMENTAL, ethernet
from vxagent.lab.pump import VNET_HDR
from vxagent.lab.tap import open_tap, take
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC

SHORT = 500
FRAMES = 5000


class Awaited:
    """A VM that nobody plays: what comes for it is taken off its taps.

    Attributes:
        port, mac: of it.
    """

    def __init__(self, fleet: Clustered) -> None:
        self.one, self.two, three = fleet.hosts
        segment = fleet.new_segment()
        self.port = self.one.unique("t")
        self.mac = mac_of(self.one.count())
        self._taps = [self._tap(host) for host in (self.one, self.two)]
        self._sender = three.veth(three.unique("v"), segment)
        self.one.attach(self.port, segment, mac=[self.mac])
        fleet.known(segment, self.mac, self.one)

    def prepare(self) -> None:
        """Host 2 awaits it."""
        migrate(self.two, "prepare", self.port, ifname=self.port)

    def send(self) -> list[bytes]:
        """Have frames for it come, each another one."""
        numbers = (number.to_bytes(4, "big") for number in range(FRAMES))
        sent = [ethernet(self.mac, self._sender.mac, EXPERIMENTAL, number.ljust(50, b"\0")) for number in numbers]
        send_frames(self._sender.namespace, NIC, *sent)
        return sent

    def take(self) -> list[bytes]:
        """It reads what has come for it on host 2."""
        frames = (frame[VNET_HDR.size :] for frame in take(self._taps[1]))
        return [frame for frame in frames if frame.startswith(bytes.fromhex(self.mac.replace(":", "")))]

    def queue(self) -> int:
        """How many frames its device on host 2 keeps."""
        (shown,) = json.loads(self.two.switch.ip("-json", "link", "show", "dev", self.port))
        return int(shown["txqlen"])

    def close(self) -> None:
        """Its devices go."""
        for tap in self._taps:
            os.close(tap)

    def _tap(self, host: Host) -> int:
        tap = open_tap(host.switch, self.port)
        host.switch.ip("link", "set", self.port, "mtu", str(host.mtu), "txqueuelen", str(SHORT), "up")
        return tap


@pytest.fixture
def awaited(fleet: Clustered) -> Iterator[Awaited]:
    awaited = Awaited(fleet)
    try:
        yield awaited
    finally:
        awaited.close()


def test_what_comes_for_a_vm_that_stands_still_is_all_there_when_it_goes_on(fleet: Clustered, awaited: Awaited) -> None:
    awaited.prepare()
    assert awaited.queue() == WAITING_FRAMES
    assert migrate(awaited.one, "switchover", awaited.port)["missing"] == []
    sent = awaited.send()
    fleet.settle()
    migrate(awaited.two, "activate", awaited.port)
    assert awaited.queue() == WAITING_FRAMES
    assert awaited.take() == sent
    awaited.two.client.change("DELETE", "v1", "ports", awaited.port)
    assert awaited.queue() == SHORT


def test_the_next_agent_keeps_what_waits_and_puts_the_queue_back_in_the_end(fleet: Clustered, awaited: Awaited) -> None:
    awaited.prepare()
    assert migrate(awaited.one, "switchover", awaited.port)["missing"] == []
    sent = awaited.send()
    fleet.settle()
    awaited.two.agent.kill()
    awaited.two.agent.up()
    fleet.connected()
    assert awaited.queue() == WAITING_FRAMES
    migrate(awaited.two, "activate", awaited.port)
    assert awaited.take() == sent
    awaited.two.client.change("DELETE", "v1", "ports", awaited.port)
    assert awaited.queue() == SHORT


def test_a_migration_that_is_cancelled_puts_the_queue_back(awaited: Awaited) -> None:
    awaited.prepare()
    migrate(awaited.two, "cancel", awaited.port)
    assert awaited.queue() == SHORT


def test_a_queue_that_somebody_wants_meanwhile_stays(fleet: Clustered, awaited: Awaited) -> None:
    awaited.prepare()
    awaited.two.switch.ip("link", "set", awaited.port, "txqueuelen", "700")
    assert migrate(awaited.one, "switchover", awaited.port)["missing"] == []
    sent = awaited.send()
    fleet.settle()
    kept = awaited.take()
    assert 0 < len(kept) <= 700
    assert kept == sent[: len(kept)]
    migrate(awaited.two, "activate", awaited.port)
    awaited.two.client.change("DELETE", "v1", "ports", awaited.port)
    assert awaited.queue() == 700

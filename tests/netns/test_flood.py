"""Floods to more members than one run of the program visits (64 slots): everybody gets one copy, nobody two.

 member 0     member 1          …           member 131
┌─────────┐  ┌─────────┐                   ┌──────────┐    taps that this process reads and writes, in the place of
│   tap   │  │   tap   │                   │   tap    │    the hypervisors; every third one is a trunk port
└────┬────┘  └────┬────┘                   └────┬─────┘
┌────┴────────────┴─────────────────────────────┴─────┐
│   m0           m1             …              m131   │
└─────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from support.hearing import frame, vlan
from support.lan import Lan, running_lan
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, Frame
from vxagent.lab.namespaces import Namespace
from vxagent.lab.pump import LARGEST, VNET_HDR
from vxagent.lab.tap import open_tap
from vxagent.lab.waiting import wait_until

MEMBERS = 132  # three runs of the program
SLOTS = 64  # that one run visits
NOBODY = "02:00:00:00:99:99"
SENDER_MAC = "02:00:00:00:00:01"
STREAM = 400
LAST_LEG = "02:ff:ff:ff:ff:ff"


@dataclass(kw_only=True, eq=False)
class Member:
    """A tap, and what its reader got."""

    ifname: str
    fd: int
    vid: int = 0
    got: list[Frame] = field(default_factory=list)

    def send(self, sent: bytes) -> None:
        """As the VM."""
        os.write(self.fd, bytes(VNET_HDR.size) + sent)

    def read(self) -> list[Frame]:
        """All that came so far and was made by a test."""
        with suppress(BlockingIOError):
            while True:
                self.got.append(Frame(data=os.read(self.fd, LARGEST)[VNET_HDR.size :]))
        return [arrived for arrived in self.got if arrived.ethertype == EXPERIMENTAL]

    def has(self, source: str) -> bool:
        """It got a frame from this MAC."""
        return any(arrived.source == source for arrived in self.read())


def collect(switch: Namespace, members: list[Member]) -> list[list[Frame]]:
    """What each member got, once all that is on its way to it has come."""
    with switch.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        for member in members:
            sock.sendto(frame(BROADCAST, LAST_LEG), (member.ifname, 0))
    found = []
    for member in members:
        wait_until(partial(member.has, LAST_LEG), what=f"the last leg to {member.ifname}")
        found.append([arrived for arrived in member.read() if arrived.source != LAST_LEG])
        member.got.clear()
    return found


def flood(lan: Lan, sender: Member, sent: bytes, copies: int) -> None:
    """Send a frame and wait until that many copies are made."""
    before = lan.show(sender.ifname)["copies"]
    sender.send(sent)
    wait_until(lambda: lan.show(sender.ifname)["copies"] == before + copies, what=f"{copies} copies are made")


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture(scope="module")
def members(lan: Lan) -> list[Member]:
    """They are attached in the order of their numbers, so those are their slots."""
    found = []
    for number in range(MEMBERS):
        fd = open_tap(lan.switch, f"m{number}", offloads=False)
        lan.world.cleanup.callback(os.close, fd)
        found.append(Member(ifname=f"m{number}", fd=fd, vid=0 if number % 3 else 100 + number))
    lan.switch.ip_batch(f"link set {member.ifname} up" for member in found)
    tables = ['[[segment]]\nname = "blue"\ntenant = "acme"\n']
    for member in found:
        where = f'trunk = ["blue:{member.vid}"]' if member.vid else 'segment = "blue"'
        tables.append(f'[[port]]\nifname = "{member.ifname}"\n{where}\n')
    lan.client.change("POST", "v1", "apply", body={"text": "\n".join(tables)})
    return found


def tagged(sender: Member, destination: str, source: str = SENDER_MAC) -> bytes:
    """A frame as this member has to send it."""
    return frame(destination, source, tags=vlan(sender.vid) if sender.vid else ())


def untag(arrived: Frame) -> bytes:
    return arrived.data[:12] + arrived.data[12 + 4 * len(arrived.tags) :]


@pytest.mark.parametrize("number", [0, 1, SLOTS - 1, SLOTS, 2 * SLOTS, MEMBERS - 1])
@pytest.mark.parametrize("destination", [BROADCAST, NOBODY])
def test_every_member_gets_one_copy_as_it_wants_it_tagged_and_the_sender_none(
    lan: Lan, members: list[Member], number: int, destination: str
) -> None:
    sender = members[number]
    sent = tagged(sender, destination)
    flood(lan, sender, sent, MEMBERS - 1)
    for member, arrived in zip(members, collect(lan.switch, members), strict=True):
        expected = [] if member is sender else [vlan(member.vid) if member.vid else ()]
        assert [copy.tags for copy in arrived] == expected, member.ifname
        assert all(untag(copy)[12:] == sent[-48:] for copy in arrived)


def test_members_that_come_and_go_cost_their_neighbours_no_copy_and_give_them_none_twice(
    lan: Lan, members: list[Member]
) -> None:
    sender = members[1]
    coming_and_going = [members[number] for number in (5, SLOTS - 1, SLOTS, SLOTS + 1, 2 * SLOTS)]
    stay = [member for member in members if member not in (sender, *coming_and_going)]
    texts: list[bytes] = []
    done = threading.Event()

    def stream() -> None:
        while not done.is_set() or len(texts) < STREAM:
            sent = tagged(sender, BROADCAST)
            texts.append(sent[-48:])
            sender.send(sent)
            for member in stay[:: len(stay) // 4]:
                member.read()

    streaming = threading.Thread(target=stream)
    streaming.start()
    try:
        for member in coming_and_going:
            lan.client.change("DELETE", "v1", "ports", member.ifname)
        for member in coming_and_going:
            where = {"trunk": [f"blue:{member.vid}"]} if member.vid else {"segment": "blue"}
            lan.attach(member.ifname, **where)
    finally:
        done.set()
        streaming.join()
    arrived = dict(zip((member.ifname for member in members), collect(lan.switch, members), strict=True))
    for member in stay:
        assert Counter(untag(copy)[12:] for copy in arrived[member.ifname]) == Counter(texts), member.ifname


@pytest.mark.parametrize("count", [SLOTS - 1, SLOTS, SLOTS + 1])
def test_a_segment_whose_slots_end_at_the_border_of_a_run(lan: Lan, members: list[Member], count: int) -> None:
    segment = lan.new_segment()
    used = members[:count]
    for member in used:
        lan.client.change("PATCH", "v1", "ports", member.ifname, body={"segment": segment})
    for sender in (used[0], used[-1]):
        flood(lan, sender, sent := frame(BROADCAST, SENDER_MAC), count - 1)
        for member, arrived in zip(members, collect(lan.switch, members), strict=True):
            expected = [sent] if member in used and member is not sender else []
            assert [copy.data for copy in arrived] == expected, member.ifname

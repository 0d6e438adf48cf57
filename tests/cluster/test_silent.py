"""A host that dies: nothing is flooded to it once it has been silent for long enough, until it is back.

  a ──────► b        c             broadcasts; host 2 is cut off, with its agent dead; of host 3 only the agent is
host 1    host 2   host 3
"""

from __future__ import annotations

import pytest

from support.clustered import Clustered, eventually
from support.fleet import UNDERLAY, Host, one_cpu
from support.hearing import frame
from support.vxlan import read_packet
from vxagent.lab.frames import BROADCAST
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, VethVm
from vxagent.lab.waiting import wait_until

SAID = "host host2 of the cluster is silent: nothing is flooded to it until it is back; its ports stay its own"
GIVEN_UP_S = 100.0  # a session has to end, 15 s, 30 s to go by, and somebody to be asked in vain


@pytest.mark.timeout(240)
def test_nothing_is_flooded_to_a_host_that_is_dead_until_it_is_back(fleet: Clustered) -> None:
    one, two, three = fleet.hosts
    segment = fleet.new_segment()
    a, b, c = (host.veth(host.unique("v"), segment) for host in fleet.hosts)
    with fleet.underlay.sniff("h1") as sniffer:
        assert flooded_to(a, sniffer, three.vtep) == {two.vtep, three.vtep}
        for host in (two, three):
            host.agent.kill()
        two.switch.ip("link", "set", UNDERLAY, "down")
        try:
            wait_until(lambda: silent(one) == [two.name], within=GIVEN_UP_S, what="it is given up")
            assert flooded_to(a, sniffer, three.vtep) == {three.vtep}
            assert fleet.stored.read(f"port/{b.port}")["owner"] == two.name
            assert [row["what"] for row in one.client.get("v1", "doctor") if "host2" in row["what"]] == [SAID]
            two.switch.ip("link", "set", UNDERLAY, "up")
            wait_until(lambda: silent(one) == [], within=GIVEN_UP_S, what="it answers, without an agent")
            eventually(lambda: two.vtep in flooded_to(a, sniffer, three.vtep), "it is flooded to again")
        finally:
            two.switch.ip("link", "set", UNDERLAY, "up")
            for host in (two, three):
                host.agent.up()
        fleet.connected()
    assert silent(one) == []
    assert [len(copies) for copies in fleet.hear(a, frame(BROADCAST, a.mac), b, c)] == [1, 1]


def silent(host: Host) -> list[str]:
    """Those that do not answer it."""
    return [row["host"] for row in host.client.get("v1", "hosts") if row["silent"]]


def flooded_to(vm: VethVm, sniffer: Sniffer, sure: str) -> set[str]:
    """VTEPs to which its host sends a copy of a broadcast; `sure` is one that gets all of them."""
    first, last = (frame(BROADCAST, vm.mac) for _ in range(2))
    with one_cpu():
        for sent in (first, last):
            send_frames(vm.namespace, NIC, sent)
    sniffer.wait_for(lambda seen: receiver(seen.data, last) == sure)
    return {to for seen in sniffer.frames() if (to := receiver(seen.data, first))}


def receiver(data: bytes, sent: bytes) -> str:
    """Of the packet that carries a frame; "": it is another one."""
    packet = read_packet(data)
    return packet.receiver if packet is not None and packet.frame == sent else ""

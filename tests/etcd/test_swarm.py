"""Twenty simulated hosts in two processes at one etcd: the short form of what `make scale` measures.

sim0 sim2 …  in one process ──┐
                              ├── etcd          each host in 3 segments of 10 hosts each, with 5 ports
sim1 sim3 …  in another ──────┘
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from support.etcd_nodes import Nodes, etcd_nodes
from support.swarm_layout import Layout
from support.swarms import running_swarms
from vxagent.lab.waiting import wait_until

LAYOUT = Layout(hosts=20, ports=5, segments=3, share=10)
SOON_S = 60.0
RATE, SECONDS = 20.0, 2.0


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with etcd_nodes(tmp_path_factory.mktemp("etcd")) as nodes:
        yield nodes


def put(nodes: Nodes, key: str, value: str) -> None:
    coded = [base64.b64encode(text.encode()).decode() for text in (f"/vxagent/v1/swarm/{key}", value)]
    nodes.ask("kv/put", key=coded[0], value=coded[1])


def test_each_of_many_hosts_knows_exactly_what_it_should(node: Nodes) -> None:
    with running_swarms(LAYOUT, list(node.endpoints), "swarm") as swarms:
        swarms.all("start")
        swarms.converge(SOON_S)
        assert swarms.mistakes() == []

        changes = swarms.change(RATE, SECONDS)
        assert (changes.failed, changes.unheard) == ({}, 0)
        assert changes.done + changes.late == RATE * SECONDS
        assert len(changes.told) == 9 * len(changes.asked) > 0  # each of the others in its segment, once
        wait_until(lambda: swarms.mistakes() == [], within=SOON_S, what="they know that those ports are gone")

        swarms.all("restart")
        swarms.converge(SOON_S)
        assert swarms.mistakes() == []

        put(node, "fdb/s0-0/stray", '{"o":"sim0","p":"bound","e":1}')
        wait_until(swarms.mistakes, within=SOON_S, what="ten hosts hear of a port that is not there")
        assert swarms.mistakes()[0] == "10 mistakes"
        swarms.all("end")

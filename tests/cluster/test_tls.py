"""An engine that asks for certificates: agents that have one of its authority's are a cluster, others are told so.

  a             b             c, d
host1         host2         host3         whose agent is given another certificate, or none
  └─────────────┴─────────────┴──── etcd, by TLS
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.certificates import Authority
from support.clustered import cluster_of, eventually, where
from support.fleet import Host
from support.lan import assert_connected
from support.sealed import Sealed, running_sealed
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.ping import ping
from vxagent.store.engine import Credentials
from vxagent_cli.client import AgentSaysNo


@pytest.fixture(scope="module")
def fleet() -> Iterator[Sealed]:
    with running_sealed() as fleet:
        yield fleet


@pytest.fixture
def back(fleet: Sealed) -> Iterator[None]:
    """Host 3 is let in again afterwards."""
    yield
    fleet.start_with(fleet.hosts[2], fleet.authority.client("host3"))
    fleet.connected()


def nothing(fleet: Sealed, _: Path) -> Credentials:
    """It has no certificate."""
    return Credentials(ca=fleet.authority.ca)


def another_authoritys(fleet: Sealed, directory: Path) -> Credentials:
    """Its certificate is by somebody whom the engine does not trust."""
    theirs = Authority(directory).client("host3")
    return Credentials(ca=fleet.authority.ca, cert=theirs.cert, key=theirs.key)


def no_trust(fleet: Sealed, directory: Path) -> Credentials:
    """It does not trust the engine."""
    ours = fleet.authority.client("host3")
    return Credentials(ca=Authority(directory).ca, cert=ours.cert, key=ours.key)


def status_line(host: Host) -> str:
    """What `vxagent status` prints of the cluster."""
    lines = host.agent.cli("status").stdout.splitlines()
    return " ".join(next(line for line in lines if line.startswith("cluster")).split())


def test_agents_with_certificates_are_a_cluster(fleet: Sealed) -> None:
    one, two, _ = fleet.hosts
    assert all(url.startswith("https://") for url in fleet.endpoints)
    assert [status_line(host) for host in fleet.hosts] == ["cluster connected"] * 3
    segment = fleet.new_segment()
    a, b = one.veth(one.unique("v"), segment), two.veth(two.unique("v"), segment)
    two.client.change("PATCH", "v1", "ports", b.port, body={"mac": [b.mac], "ip": [b.address]})
    fleet.known(segment, b.mac, two)
    assert where(one, segment, b.mac) == two.vtep
    bound = next(row for row in one.agent.json("binding", "list") if row["port"] == b.port)
    assert (bound["owner"], bound["phase"]) == ("host2", "bound")
    assert_connected(a, b)


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize(
    ("given", "why"),
    [
        (nothing, "it does not take this host's certificate, or misses one: cert and key of [cluster]"),
        (another_authoritys, "it does not take this host's certificate, or misses one: cert and key of [cluster]"),
        (no_trust, "its certificate is by nobody whom this host trusts: ca of [cluster]"),
    ],
)
def test_an_agent_that_is_not_let_in_says_so_and_its_host_goes_on(
    fleet: Sealed, tmp_path: Path, given: Callable[[Sealed, Path], Credentials], why: str
) -> None:
    one, _, three = fleet.hosts
    segment = fleet.new_segment()
    a, c, d = (host.veth(host.unique("v"), segment) for host in (one, three, three))
    assert_connected(a, c)
    before = len(three.agent.log())
    fleet.start_with(three, given(fleet, tmp_path))
    line = f"WARNING cluster: etcd is away ({why})"
    eventually(lambda: line in three.agent.log()[before:], "its log says why")
    assert status_line(three) == "cluster disconnected"
    with pytest.raises(AgentSaysNo, match=f"the cluster does not answer .*{re.escape(why)}"):
        three.segment("late", vni=70000)
    assert_connected(c, d)
    assert ping(a.namespace, c.address).lost == []
    assert cluster_of(one) == "connected"


@pytest.mark.usefixtures("back")
def test_an_agent_whose_certificate_cannot_be_read_does_not_start_and_its_host_goes_on(fleet: Sealed) -> None:
    three = fleet.hosts[2]
    segment = fleet.new_segment()
    c, d = three.veths(segment, 2)
    assert_connected(c, d)
    ours = fleet.authority.client("host3")
    with pytest.raises(CommandFailed, match=r"no\.pem cannot be read: No such file or directory; see ca, cert and key"):
        fleet.start_with(three, Credentials(ca=ours.ca, cert=Path("/no.pem"), key=ours.key))
    assert_connected(c, d)

"""A cluster for the tests of a file: three hosts with an agent each, and one engine."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from support.clustered import Clustered, running_cluster
from support.fleet import Wire
from vxagent.lab.fabric import Fabric

UPLINK = "up0"
TOLD = 6000  # of a log, of a test that failed


@pytest.fixture(scope="module")
def fleet() -> Iterator[Clustered]:
    """Each test leaves it as it should be: connected, and what it made is its own."""
    with running_cluster() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def fabric(fleet: Clustered) -> Fabric:
    """Who is on the network on which all hosts have their uplinks; it learns as switches do."""
    wire = Wire(fleet.world, "wire")
    for host in fleet.hosts:
        wire.connect(host.switch, UPLINK, f"u{host.number}")
        host.client.change("POST", "v1", "uplinks", body={"ifname": UPLINK})
    return wire.trunk("f")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the agents had to say goes along with a failure."""
    report = yield
    if report.failed:
        for fleet in (one for one in item.funcargs.values() if isinstance(one, Clustered)):
            report.sections += [(f"log of {host.name}", host.agent.log()[-TOLD:]) for host in fleet.hosts]
    return report

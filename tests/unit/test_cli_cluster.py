"""`vxagent host …`, as people see it: hv2 is dead, hv1's agent answers.

hv2/veth2: vm7      hv2/mgmt0: hv2 itself      hv1/veth2: vm1      hv1/tap1: free
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.agents import DEVICES, ServedHost
from support.cluster import BLUE, MAC
from support.members import QUICK
from vxagent.lab.waiting import wait_until
from vxagent.model.port import Mode, Port
from vxagent.model.vtep import Overlay
from vxagent.runtime.config import ClusterConfig
from vxagent.runtime.loop import Agent
from vxagent.runtime.luggage import pack
from vxagent.store.cluster import Cluster
from vxagent.store.fake_kv import FakeEngine
from vxagent_cli.app import run
from vxagent_cli.client import AgentSaysNo, Client

Vxagent = Callable[[str], tuple[int, list[str]]]

PORTS = (
    Port(id="mgmt0", ifname="mgmt0", segment="blue", mode=Mode.INTERNAL),
    Port(id="vm7", ifname="veth2", segment="blue", macs=(MAC,)),
)


class ClusteredHost(ServedHost):
    """hv1, whose engine and whose peers are in memory."""

    def __init__(self, run_dir: Path) -> None:
        devices = [replace(one, addresses=("192.0.2.1",)) if one.ifname == "eth1" else one for one in DEVICES]
        super().__init__(run_dir, devices)
        self.engine = FakeEngine()
        cluster = ClusterConfig(name="test", endpoints=("http://fake:1",))
        self.config = replace(self.config, overlay=Overlay(vtep="192.0.2.1", device="eth1"), cluster=cluster)

    def agent(self) -> Agent:
        return Agent(
            datapath=self.datapath,
            links=self.links,
            store=self.store,
            config=self.config,
            read_config=lambda: self.config,
            waits=QUICK,
            connect=lambda _: self.engine.client(),
            answers=_nobody,
            boot="b",
        )


async def _nobody(vtep: str) -> bool:
    return False


async def live_and_die(engine: FakeEngine) -> None:
    """hv2's life."""
    cluster = Cluster(engine.client(), "test", "hv2")
    session = await cluster.open(vtep="192.0.2.2", boot="b")
    await cluster.claim_segment(replace(BLUE, vlan=None))
    for port in PORTS:
        await cluster.bind(port.id, segments=["blue"], macs=port.macs)
        await cluster.carry(port.id, pack("hv2", port))
    await session.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ClusteredHost]:
    """It has segment blue, and vm1 on the device that vm7 had on hv2."""
    host = ClusteredHost(tmp_path)
    asyncio.run(live_and_die(host.engine))
    with host:
        client = Client(tmp_path)
        wait_until(lambda: client.get("v1", "status")["cluster"] == "connected", what="the engine answers")
        client.change("POST", "v1", "segments", body={"name": "blue", "tenant": "acme", "vni": 5010, "mtu": 1450})
        client.change("POST", "v1", "ports", body={"ifname": "veth2", "id": "vm1", "segment": "blue"})
        yield host


@pytest.fixture
def vxagent(host: ClusteredHost, capsys: pytest.CaptureFixture[str]) -> Vxagent:
    """Runs a command line; gives its exit code and what it prints."""

    def call(line: str) -> tuple[int, list[str]]:
        code = run(["--run-dir", str(host.run_dir), *line.split()])
        captured = capsys.readouterr()
        return code, [*captured.out.splitlines(), *captured.err.splitlines()]

    return call


def test_a_dead_host_is_evacuated_and_forgotten(vxagent: Vxagent) -> None:
    in_use = "vxagent: port vm7 cannot have device veth2 on host hv1: it is port vm1's; name another one: "
    assert vxagent("host evacuate hv2") == (1, [f"{in_use}`vxagent host evacuate hv2 --ifname vm7=IFNAME`"])
    left = "port mgmt0 stays host hv2's own, until `vxagent host forget hv2`"
    assert vxagent("host forget hv2") == (
        1,
        ["vxagent: 1 ports are bound on host hv2, vm7 among them; `vxagent host evacuate hv2` first"],
    )
    assert vxagent("host evacuate hv2 --ifname vm7=tap1") == (0, ["port vm7 is here now", left])
    assert vxagent("host evacuate hv2 --ifname vm7=tap1") == (0, [left])
    assert vxagent("host forget hv2") == (0, ["port mgmt0, host hv2's own, is gone", "host hv2 is forgotten"])
    assert vxagent("host forget hv2") == (1, ["vxagent: no host hv2; see `vxagent host list`"])
    assert vxagent("host evacuate hv2") == (1, ["vxagent: no host hv2; see `vxagent host list`"])


def test_a_silent_host_is_listed_as_such(vxagent: Vxagent) -> None:
    def rows() -> list[dict[str, object]]:
        code, lines = vxagent("host list --json")
        assert code == 0
        found: list[dict[str, object]] = json.loads("\n".join(lines))
        return found

    wait_until(lambda: rows()[1]["silent"], what="hv2 is taken for silent")
    assert rows() == [
        {"host": "hv1", "vtep": "192.0.2.1", "live": True, "silent": False, "ports": 1},
        {"host": "hv2", "vtep": "192.0.2.2", "live": False, "silent": True, "ports": 2},
    ]
    assert [line.split() for line in vxagent("host list")[1]] == [
        ["HOST", "VTEP", "LIVE", "SILENT", "PORTS"],
        ["hv1", "192.0.2.1", "yes", "no", "1"],
        ["hv2", "192.0.2.2", "no", "yes", "2"],
    ]
    said = [line for line in vxagent("doctor")[1] if "hv2" in line]
    assert len(said) == 1
    assert said[0].startswith("warn  host hv2 of the cluster is silent: nothing is flooded to it until it is back; its")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ifname vm7", "--ifname vm7: must be PORT=IFNAME such as vm7=vnet3"),
        ("--ifname =tap0", "--ifname =tap0: must be PORT=IFNAME such as vm7=vnet3"),
        ("--ifname vm7=tap0 --ifname vm7=tap1", "--ifname names port vm7 twice"),
    ],
)
def test_options_that_name_no_device(options: str, message: str, vxagent: Vxagent) -> None:
    assert vxagent(f"host evacuate hv2 {options}") == (2, [f"vxagent: {message}"])


def test_a_body_that_names_no_device_is_refused(host: ClusteredHost) -> None:
    client = Client(host.run_dir)
    bodies: list[dict[str, Any]] = [{"ifnames": {"vm7": 3}}, {"ifnames": ["vm7"]}, {"devices": {}}]
    for body in bodies:
        with pytest.raises(AgentSaysNo):
            client.change("POST", "v1", "hosts", "hv2", "evacuate", body=body)

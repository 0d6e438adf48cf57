"""Before kernel 6.6 there is no tcx: clsact stands in for it, and everything is the same.

   a              b              c                hosts in VLANs 10 and 20
┌──────┐       ┌──────┐       ┌──────┐            ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │            │ eth0 │
└──┬───┘       └──┬───┘       └──┬───┘            └──┬───┘
┌──┴──────────────┴──────────────┴───┐            fabric
│  va (veth)      tb (tap)       vc  ├── up0 ────────┘        blue is VLAN 10 of acme, red VLAN 20 of evil;
└────────────────────────────────────┘                        a and b are in blue, c is in red
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import no_tcx
from support.hearing import frame, hear, ports_of, vlan, who_hears
from support.lan import AMOUNT, Lan, assert_apart, assert_connected, clean_world
from support.offload import send_offloaded
from vxagent.lab.agent import Agent
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL
from vxagent.lab.namespaces import CommandFailed, run
from vxagent.lab.ping import Pinger
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, Endpoint, TapVm, VethVm
from vxagent.lab.waiting import wait_until

AUDITED_S = 60.0  # an audit every 5 s; what could not be put right three times waits 10 s and more
SOME = 20  # answers to wait for between two events

Vms = tuple[VethVm, TapVm, VethVm]


class OldAgent(Agent):
    """An agent on a kernel without tcx links. It is this process's child, so that the kernel can be pretended."""

    process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start it; it forwards when this returns."""
        self._bury()
        self.run_dir.mkdir(exist_ok=True)
        with (self.run_dir / "agent.log").open("a") as log:
            started = self.process = subprocess.Popen(
                [*self._command(), "up", "--netns", self.netns.name, "--state-dir", str(self.state_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            lambda: started.poll() is not None or self.cli("status", check=False).returncode == 0,
            within=30,
            what="the agent is ready",
        )
        if started.returncode is not None:
            raise CommandFailed(["up"], started.returncode, (self.run_dir / "agent.log").read_text())

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `vxagent --run-dir … words`."""
        return run(*self._command(), *words, check=check)

    def end(self) -> None:
        """Take the switch away."""
        super().end()
        self._bury()

    def _bury(self) -> None:
        """Wait for the last process, which has ended or is about to."""
        if self.process is not None:
            self.process.wait(10)
            self.process = None

    def _command(self) -> list[str]:
        return [sys.executable, "-P", no_tcx.__file__, "--run-dir", str(self.run_dir)]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with clean_world() as world:
        switch = world.namespace("switch", ipv6=True)
        agent = OldAgent(world.directory(), switch)
        world.cleanup.callback(agent.end)
        agent.up()
        lan = Lan(world, switch, agent)
        lan.segment("blue", vlan=10)
        lan.segment("red", vlan=20, tenant="evil")
        yield lan


@pytest.fixture(scope="module")
def vms(lan: Lan) -> Vms:
    """a, b and c."""
    return lan.veth("va", "blue"), lan.tap("tb", "blue"), lan.veth("vc", "red")


@pytest.fixture(scope="module")
def fabric(lan: Lan) -> Fabric:
    return lan.uplink("up0")


@pytest.fixture(scope="module")
def host(lan: Lan, fabric: Fabric) -> Endpoint:
    """A host in VLAN 10."""
    return lan.host(fabric, 10)


def filters(lan: Lan, ifname: str) -> str:
    """What tc knows of programs at the device's ingress."""
    return lan.switch.run("tc", "filter", "show", "dev", ifname, "ingress").stdout


def test_the_program_runs_at_clsact(lan: Lan, vms: Vms, fabric: Fabric) -> None:
    for ifname in ("va", "tb", "vc", "up0"):
        assert "vx_tc" in filters(lan, ifname)
    assert not list((lan.agent.run_dir / "bpf" / "links").iterdir())


def test_bulk_tcp_flows_within_a_segment_and_through_an_uplink(lan: Lan, vms: Vms, host: Endpoint) -> None:
    a, b, c = vms
    for one, other in ((a, b), (a, host), (b, host)):
        assert_connected(one, other)
    assert_apart(a, c)
    for receiver in (a, b):
        with Sniffer(receiver.namespace, NIC) as ear:
            sent = bulk_tcp(host.namespace, receiver.namespace, receiver.address, amount=AMOUNT)
            assert sent.received == AMOUNT
            assert ear.frames(lambda arrived: arrived.gso_size > 0)


def test_floods_learning_and_drops_are_the_same(lan: Lan, vms: Vms, fabric: Fabric) -> None:
    a, b, c = vms
    assert who_hears(lan, a, frame(BROADCAST, a.mac), a, b, c, fabric) == ports_of(b, fabric)
    assert who_hears(lan, b, frame(a.mac, b.mac), a, c, fabric) == ports_of(a)
    assert who_hears(lan, a, frame("01:80:c2:00:00:0e", a.mac), b, c, fabric) == []
    assert who_hears(lan, a, frame(BROADCAST, "03:00:00:00:00:01"), b, c, fabric) == []
    assert lan.drops("va") == {"link_local": 1, "src_invalid": 1}


def test_tags_beside_the_frame_are_honoured(lan: Lan, vms: Vms, fabric: Fabric) -> None:
    a, b, c = vms
    for tags in (vlan(20), vlan(10), vlan(0, 20)):
        heard = hear(lan, a, frame(BROADCAST, a.mac, tags=tags), b, c, fabric, by=send_offloaded)
        assert [copy.tags for copies in heard for copy in copies] == ([vlan(10, 20)] if len(tags) == 2 else [])


def test_no_frame_of_a_vm_reaches_the_host_and_the_uplinks_others_do(lan: Lan, vms: Vms, fabric: Fabric) -> None:
    a = vms[0]
    with (
        Sniffer(lan.switch, "va", ethertype=EXPERIMENTAL) as port,
        Sniffer(lan.switch, "up0", ethertype=EXPERIMENTAL) as uplink,
    ):
        hear(lan, a, frame(BROADCAST, a.mac))
        hear(lan, fabric, frame(BROADCAST, "02:00:00:0f:00:01", tags=vlan(10)))
        assert port.frames() + uplink.frames() == []
        hear(lan, fabric, frame(BROADCAST, "02:00:00:0f:00:01"))
        assert len(uplink.frames()) == 1


def test_neither_kill_nor_restart_nor_reload_loses_a_frame(lan: Lan, vms: Vms, host: Endpoint) -> None:
    a, b, _ = vms
    pingers = [Pinger(one.namespace, other.address, interval=0.003).start() for one, other in ((a, b), (b, host))]

    def go_on() -> None:
        enough = [pinger.pings.received + SOME for pinger in pingers]
        wait_until(lambda: all(p.pings.received >= some for p, some in zip(pingers, enough, strict=True)))

    go_on()
    for _ in range(3):
        lan.agent.cli("reload")
        go_on()
    lan.agent.kill()
    go_on()
    lan.agent.up()
    go_on()
    lan.agent.cli("stop")
    go_on()
    lan.agent.up()
    go_on()
    assert [pinger.stop().lost for pinger in pingers] == [[], []]


def test_a_device_comes_back(lan: Lan, vms: Vms) -> None:
    a, b, _ = vms
    a.unplug()
    wait_until(lambda: lan.state("va") == "pending")
    a.plug()
    wait_until(lambda: lan.state("va") == "up")
    assert_connected(a, b)


@pytest.mark.parametrize("alive", [True, False])
def test_detach_and_down_leave_no_filter(lan: Lan, vms: Vms, fabric: Fabric, alive: bool) -> None:
    lan.client.change("DELETE", "v1", "ports", "vc")
    assert filters(lan, "vc") == ""
    if not alive:
        lan.agent.kill()
    lan.agent.cli("down")
    for ifname in ("va", "tb", "up0"):
        assert filters(lan, ifname) == ""
        assert "clsact" not in lan.switch.run("tc", "qdisc", "show", "dev", ifname).stdout
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(lan.agent.run_dir) in line]
    lan.agent.up()
    lan.attach("vc", "red")
    assert_connected(vms[0], vms[1])


# --- drift -----------------------------------------------------------------------------------------


def at_ingress(lan: Lan, ifname: str) -> str:
    return lan.switch.run("tc", "filter", "show", "dev", ifname, "ingress").stdout


@pytest.mark.parametrize("what", ["filter del dev va ingress pref 1", "qdisc del dev va clsact"])
def test_a_filter_that_somebody_deleted_is_put_back(lan: Lan, vms: Vms, what: str) -> None:
    a, b, _ = vms
    lan.switch.run("tc", *what.split())
    wait_until(lambda: "vxagent direct-action" in at_ingress(lan, "va"), within=AUDITED_S, what="our filter is back")
    assert_connected(a, b)


def test_a_filter_of_somebody_else_in_our_place_is_told_and_left(lan: Lan, vms: Vms) -> None:
    a, b, _ = vms
    place = ("dev", "va", "ingress", "pref", "1")
    lan.switch.run("tc", "filter", "del", *place)
    lan.switch.run("tc", "filter", "add", *place, "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1")
    told = "program of port va did not run on va: cannot be put right: the ingress of device va has a bpf filter"
    wait_until(lambda: told in lan.agent.log(), within=AUDITED_S, what="it is told")
    wait_until(lambda: lan.client.get("v1", "status")["foreign"] == {"clsact": 1}, within=AUDITED_S, what="counted")
    assert "vxagent" not in at_ingress(lan, "va")
    lan.switch.run("tc", "filter", "del", *place)
    wait_until(lambda: "vxagent direct-action" in at_ingress(lan, "va"), within=AUDITED_S, what="our filter is back")
    assert_connected(a, b)

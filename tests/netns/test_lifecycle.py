"""The agent's life: started, stopped, killed, taken away, started again, and what stays of it.

   a              b              c
┌──────┐       ┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │
└──┬───┘       └──┬───┘       └──┬───┘        segment blue (VLAN 10); c's port lists its MAC;
┌──┴──────────────┴──────────────┴───┐        a static entry leads to tb
│  va (veth)      tb (tap)       vc  ├── up0
└────────────────────────────────────┘
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.kernel_objects import pinned_below
from support.lan import Lan, assert_apart, assert_connected
from vxagent.lab.agent import VXAGENT, Agent, running
from vxagent.lab.namespaces import CommandFailed, run
from vxagent.lab.ping import ping
from vxagent.lab.vm import TapVm, VethVm
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

STATIC = "02:00:00:00:99:01"
MANY = 40

Vms = tuple[VethVm, TapVm, VethVm]


@pytest.fixture
def vms(lan: Lan) -> Vms:
    """Three VMs in segment blue."""
    lan.segment("blue", vlan=10)
    a, b, c = lan.veth("va", "blue"), lan.tap("tb", "blue", max_macs=5), lan.veth("vc", None)
    lan.attach(c.port, "blue", mac=[c.mac])
    lan.client.change("POST", "v1", "fdb", body={"segment": "blue", "mac": STATIC, "port": "tb"})
    return a, b, c


def left_by(agent: Agent) -> list[str]:
    """Mounts and pins that are still there of a switch."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {agent.run_dir}/" in line]
    return mounts + [str(path) for path in (agent.run_dir / "bpf").rglob("*")]


def settings(lan: Lan, ifname: str) -> tuple[set[str], str]:
    """(flags, whether IPv6 is off) of a device."""
    off = lan.switch.run("cat", f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6").stdout.strip()
    return set(lan.device(ifname)["flags"]), off


def reboot(lan: Lan, vms: Vms) -> None:
    """What a crash of the machine leaves: the files in the state directory, and devices made anew."""
    lan.agent.kill()
    run("umount", str(lan.agent.run_dir / "bpf"))
    shutil.rmtree(lan.agent.run_dir)
    for vm in vms:
        vm.unplug()


# --- what stays ------------------------------------------------------------------------------------


def by_stop(lan: Lan) -> None:
    lan.agent.cli("stop")


def by_kill(lan: Lan) -> None:
    lan.agent.kill()


def by_down(lan: Lan) -> None:
    lan.agent.cli("down")


def by_sigterm(lan: Lan) -> None:
    pid = lan.agent.pid
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not running(pid), what="the agent ends")


@pytest.mark.parametrize("end", [by_stop, by_kill, by_down, by_sigterm])
def test_the_desired_state_survives_the_agent(lan: Lan, vms: Vms, end: Callable[[Lan], None]) -> None:
    a, b, c = vms
    lan.agent.cli("uplink", "add", "up0")  # whose device is not there yet
    desired = lan.agent.cli("export").stdout
    end(lan)
    lan.agent.up()
    assert lan.agent.cli("export").stdout == desired
    assert [lan.state(vm.port) for vm in vms] == ["up"] * 3
    for one, other in ((a, b), (b, c), (c, a)):
        assert_connected(one, other)


@pytest.mark.parametrize("end", [by_stop, by_kill])
def test_what_was_learned_and_counted_survives_the_agent(lan: Lan, vms: Vms, end: Callable[[Lan], None]) -> None:
    a, b, _ = vms
    assert ping(a.namespace, b.address).lost == []
    entries = {(row["mac"], row["port"]) for row in lan.client.get("v1", "fdb")}
    received = lan.received("va")
    end(lan)
    lan.agent.up()
    assert {(row["mac"], row["port"]) for row in lan.client.get("v1", "fdb")} == entries
    assert lan.received("va") >= received > 0


def test_the_state_survives_the_machine(lan: Lan, vms: Vms) -> None:
    a, b, c = vms
    desired = lan.agent.cli("export").stdout
    reboot(lan, vms)
    lan.agent.up()
    assert lan.agent.cli("export").stdout == desired
    assert [lan.state(vm.port) for vm in vms] == ["pending"] * 3
    for vm in vms:
        vm.plug()
    wait_until(lambda: [lan.state(vm.port) for vm in vms] == ["up"] * 3, what="all ports take their devices")
    for one, other in ((a, b), (b, c), (c, a)):
        assert_connected(one, other)
    assert lan.entry("blue", STATIC) is not None


def test_what_happens_to_devices_meanwhile_is_found_at_the_next_start(lan: Lan, vms: Vms) -> None:
    a, b, c = vms
    lan.agent.cli("port", "attach", "vd", "--segment", "blue")
    lan.agent.cli("stop")
    b.unplug()
    a.unplug()
    a.plug()
    d = lan.veth("vd", None)
    lan.agent.up()
    assert [lan.state(port) for port in ("va", "tb", "vc", "vd")] == ["up", "pending", "up", "up"]
    for one, other in ((a, c), (c, d), (d, a)):
        assert_connected(one, other)


# --- what goes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [by_stop, by_kill, None], ids=["stopped", "killed", "alive"])
def test_down_leaves_nothing_and_the_devices_as_they_were(
    lan: Lan, world: World, end: Callable[[Lan], None] | None
) -> None:
    lan.segment("blue", vlan=10)
    a, b = lan.veth("va", None), lan.tap("tb", None)
    world.fabric(lan.switch, "up0")
    ours = ("va", "tb", "up0")
    before = {name: settings(lan, name) for name in ours}
    for name in ("va", "tb"):
        lan.attach(name, "blue")
    lan.agent.cli("uplink", "add", "up0")
    assert_connected(a, b)
    objects = pinned_below(lan.agent.run_dir / "bpf")
    assert objects.programs
    assert objects.maps
    assert len(objects.left()) == len(objects.programs) + len(objects.maps)
    pid = lan.agent.pid
    if end is not None:
        end(lan)
    lan.agent.cli("down")
    assert not running(pid)
    wait_until(lambda: not objects.left(), what="programs and maps are gone")
    assert left_by(lan.agent) == []
    assert sorted(path.name for path in lan.agent.run_dir.iterdir()) == ["agent.log", "lock"]
    assert "UP" in lan.device("up0")["flags"]
    for name in ("va", "tb"):
        assert "UP" not in lan.device(name)["flags"]
        lan.switch.ip("link", "set", name, "up")
    lan.switch.wait_running("up0")
    assert {name: settings(lan, name) for name in ours} == before


def test_after_down_no_vm_reaches_another(lan: Lan, vms: Vms) -> None:
    a, _, c = vms
    assert_connected(a, c)
    lan.agent.cli("down")
    assert_apart(a, c)


def test_down_where_nothing_was_is_no_failure(agent: Agent) -> None:
    for _ in range(2):
        agent.cli("down")
    assert left_by(agent) == []


def test_down_after_the_namespace_has_gone_leaves_nothing(lan: Lan, vms: Vms) -> None:
    lan.agent.kill()
    lan.switch.delete()
    lan.agent.cli("down")
    assert left_by(lan.agent) == []
    lan.switch.create()  # for the end of the world


def test_an_agent_does_not_start_where_its_switch_is_not(lan: Lan, world: World, vms: Vms) -> None:
    lan.agent.cli("stop")
    here = lan.agent.netns
    lan.agent.netns = world.namespace("elsewhere")
    with pytest.raises(CommandFailed, match=rf"is in network namespace {here.path}; take it off first"):
        lan.agent.up()
    assert_connected(vms[0], vms[1])
    lan.agent.cli("down")
    lan.agent.up()
    assert [lan.state(vm.port) for vm in vms] == ["pending"] * 3


# --- dying in the middle ----------------------------------------------------------------------------


def test_an_agent_killed_in_the_middle_of_a_change_leaves_nothing_half_done(lan: Lan, tmp_path: Path) -> None:
    names = [f"x{n}" for n in range(MANY)]
    far = lan.world.namespace("far")
    lan.switch.ip_batch(f"link add {name} type veth peer name {name} netns {far.name}" for name in names)
    document = tmp_path / "many.toml"
    ports = "".join(f'[[port]]\nifname = "{name}"\nsegment = "blue"\n' for name in names)
    document.write_text(f'[[segment]]\nname = "blue"\ntenant = "acme"\n{ports}')
    links = lan.agent.run_dir / "bpf" / "links"
    pid = lan.agent.pid
    applying = subprocess.Popen(
        [VXAGENT, "--run-dir", str(lan.agent.run_dir), "apply", str(document)], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(links.iterdir())) >= MANY // 4, what="some of them run")
    os.kill(pid, signal.SIGKILL)
    _, said = applying.communicate(timeout=10)
    assert (applying.returncode, said.count("\n")) == (1, 1)
    lan.agent.up()
    assert lan.agent.cli("diff", str(document)).stdout == "no difference\n"
    assert {lan.state(name) for name in names} == {"up"}


# --- several agents --------------------------------------------------------------------------------


def test_agents_in_two_namespaces_live_side_by_side(lan: Lan, world: World, vms: Vms) -> None:
    other = world.namespace("other", ipv6=True)
    agent = Agent(world.directory(), other)
    world.cleanup.callback(agent.end)
    agent.up()
    agent.cli("segment", "add", "blue", "--tenant", "evil", "--vlan", "10")
    twins = [
        world.veth_vm(other, f"{vm.port}2", mac=vm.mac, address=vm.address) for vm in vms[:2]
    ]  # as the other switch's, but for the names of their namespaces
    for twin in twins:
        agent.cli("port", "attach", twin.port, "--segment", "blue")
    assert_connected(*twins)
    assert_connected(vms[0], vms[1])
    agent.cli("down")
    assert_connected(vms[0], vms[1])
    assert_apart(*twins)
    agent.up()
    lan.agent.kill()
    assert_connected(*twins)
    assert agent.json("status")["ready"] is True

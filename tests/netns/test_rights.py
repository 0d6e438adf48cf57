"""Rights: an agent that is not root, and who may ask one.

   a              b                          c
┌──────┐       ┌──────┐                   ┌──────┐
│ eth0 │       │ eth0 │                   │ eth0 │ VLAN 10
└──┬───┘       └──┬───┘                   └──┬───┘
┌──┴──────────────┴───────┐               ┌──┴───┐
│  va (veth)      tb (tap)├── up0 ────────┤fabric│      mg: the host itself
└─────────────────────────┘               └──────┘
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from support.lan import Lan, assert_connected
from support.users import AGENT_UID, NEEDED, SOMEBODY_UID, UserAgent, as_user, ask_as
from vxagent.lab.agent import Agent, running
from vxagent.lab.namespaces import CommandFailed, Namespace
from vxagent.lab.ping import ping
from vxagent.lab.vm import Endpoint, VethVm
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World
from vxagent.netlink.watch import PLACES

BITS = {"net_admin": 12, "dac_read_search": 2, "perfmon": 38, "bpf": 39}
GROUP = 61300


@pytest.fixture
def own(world: World, switch: Namespace) -> UserAgent:
    """An agent as a user of its own, not started yet."""
    agent = UserAgent(world.directory(), switch)
    world.cleanup.callback(agent.end)
    return agent


@pytest.fixture
def lan_of_own(world: World, switch: Namespace, own: UserAgent) -> Lan:
    """Its switch."""
    own.up()
    return Lan(world, switch, own)


def capabilities_of(agent: UserAgent) -> set[str]:
    """The capabilities that are in force in its process."""
    mask = int(agent.status()["CapEff"], 16)
    known = {name for name, bit in BITS.items() if mask >> bit & 1}
    assert mask == sum(1 << BITS[name] for name in known)
    return known - {"dac_read_search"}


def plugged(lan: Lan) -> tuple[VethVm, Endpoint, Endpoint]:
    """a, b and c of the picture."""
    lan.segment("blue", vlan=10)
    fabric = lan.uplink()
    a, b = lan.veth("va", "blue"), lan.tap("tb", "blue")
    return a, b, lan.host(fabric, 10)


def assert_all_connected(*hosts: Endpoint) -> None:
    """By ping and bulk TCP, each with the next."""
    for one, other in itertools.pairwise(hosts):
        assert_connected(one, other)


def test_three_capabilities_are_all_that_an_agent_needs(lan_of_own: Lan, own: UserAgent) -> None:
    assert own.status()["Uid"].split() == [str(AGENT_UID)] * 4
    assert own.status()["NoNewPrivs"] == "1"
    assert capabilities_of(own) == set(NEEDED)
    a, b, c = plugged(lan_of_own)
    assert_all_connected(a, b, c, a)
    off = lan_of_own.switch.run("cat", "/proc/sys/net/ipv6/conf/tb/disable_ipv6").stdout
    assert (off.strip(), "NOARP" in lan_of_own.device("tb")["flags"]) == ("1", True)
    own.cli("reload")
    assert_all_connected(a, b)
    findings = [f["what"] for f in own.json("doctor") if f["level"] == "bad"]
    assert findings == []


def test_a_tap_has_xdp_unless_vhost_net_is_there_and_processes_cannot_be_seen(lan_of_own: Lan) -> None:
    lan_of_own.segment("blue")
    lan_of_own.tap("tb", "blue")
    shown = lan_of_own.show("tb")
    if any(place.exists() for place in PLACES):
        assert shown["hook"] == "tc"
        assert "CAP_SYS_PTRACE" in shown["hook_why"]
    else:
        assert (shown["hook"], shown["hook_why"]) == ("xdp+tc", "")


def test_the_host_has_a_port_of_its_own(lan_of_own: Lan) -> None:
    lan_of_own.segment("blue")
    a = lan_of_own.veth("va", "blue")
    lan_of_own.client.change("POST", "v1", "ports", body={"internal": "mg", "segment": "blue"})
    lan_of_own.switch.ip("address", "add", "10.0.0.100/24", "dev", "mg")
    lan_of_own.switch.wait_running("mg")
    assert ping(a.namespace, "10.0.0.100").lost == []


def test_forwarding_outlives_a_killed_and_a_stopped_agent_and_the_next_takes_over(
    lan_of_own: Lan, own: UserAgent
) -> None:
    a, b, c = plugged(lan_of_own)
    own.kill()
    assert_all_connected(a, b, c)
    own.up()
    assert lan_of_own.state("tb") == "up"
    own.cli("stop")
    assert_all_connected(a, b, c)
    own.up()
    own.cli("port", "detach", "va")
    lan_of_own.attach("va", "blue")
    assert_all_connected(a, b)


def test_down_takes_everything_away_but_the_bpffs_that_is_roots(lan_of_own: Lan, own: UserAgent) -> None:
    plugged(lan_of_own)
    own.cli("down")
    assert {path.name for path in (own.run_dir / "bpf").iterdir()} <= {"maps.debug", "progs.debug"}  # the kernel's own
    assert (own.run_dir / "bpf").is_mount()
    assert lan_of_own.device("va").get("xdp") is None
    assert "UP" not in lan_of_own.device("va")["flags"]


def test_without_a_bpffs_root_is_told_what_to_do(world: World, own: UserAgent) -> None:
    pins = own.run_dir / "bpf"
    own.netns.run("umount", str(pins))
    with pytest.raises(CommandFailed, match=f"no bpffs at {pins}, and only root mounts one; run as root, or have root"):
        own.up()


def test_a_namespace_takes_a_capability_that_is_given_away_once_it_is_entered(world: World, switch: Namespace) -> None:
    agent = UserAgent(world.directory(), switch, capabilities=("sys_admin",))
    world.cleanup.callback(agent.end)
    agent.up()
    assert capabilities_of(agent) == set(NEEDED)
    lan = Lan(world, switch, agent)
    lan.segment("blue")
    assert_connected(lan.veth("va", "blue"), lan.tap("tb", "blue"))


def test_an_agent_that_a_watchdog_ends_says_where_it_was(agent: Agent) -> None:
    agent.up()
    pid = agent.pid
    os.kill(pid, signal.SIGABRT)
    wait_until(lambda: not running(pid), what="end of the agent")
    assert "Fatal Python error: Aborted" in agent.log()
    assert "in run_forever" in agent.log()
    agent.up()


# --- who may ask ---------------------------------------------------------------------------------


@pytest.fixture
def grouped(world: World, switch: Namespace) -> Agent:
    """An agent of root's that a group may ask."""
    directory = world.directory()
    directory.chmod(0o755)
    agent = Agent(directory, switch, config=f'group = "{GROUP}"\n')
    world.cleanup.callback(agent.end)
    agent.up()
    return agent


@pytest.mark.parametrize(
    "member",
    [as_user(SOMEBODY_UID, groups=(GROUP,)), as_user(GROUP)],
    ids=["supplementary group", "primary group"],
)
def test_a_member_of_the_group_may_read_and_change_and_the_log_says_who(
    grouped: Agent, member: tuple[str, ...]
) -> None:
    uid = GROUP if f"--reuid={GROUP}" in member else SOMEBODY_UID
    added = ask_as(member, grouped, "segment", "add", "blue", "--tenant", "acme")
    assert (added.returncode, added.stderr) == (0, "")
    assert ask_as(member, grouped, "segment", "list").returncode == 0
    refused = ask_as(member, grouped, "segment", "del", "red")
    assert refused.returncode == 1
    changes = [line.partition("change by ")[2] for line in grouped.log().splitlines() if "change by" in line]
    assert [line.partition(": ")[2] for line in changes] == [
        'POST /v1/segments name="blue" tenant="acme": done',
        "DELETE /v1/segments/red: refused: no segment red; see `vxagent segment list`",
    ]
    assert all(line.startswith(f"? (uid {uid}, vxagent[") for line in changes)


def test_somebody_else_is_told_which_group_it_takes(grouped: Agent) -> None:
    refused = ask_as(as_user(SOMEBODY_UID), grouped, "status")
    assert refused.returncode == 1
    assert f"the agent in {grouped.run_dir} cannot be asked: you are not in group {GROUP}; use sudo, or " in (
        refused.stderr
    )


def test_a_socket_that_somebody_opened_to_all_lets_in_no_more_than_before(grouped: Agent) -> None:
    """The kernel says who has connected, whatever the socket's mode."""
    Path(grouped.run_dir / "api.sock").chmod(0o666)
    refused = ask_as(as_user(SOMEBODY_UID), grouped, "segment", "add", "blue", "--tenant", "acme")
    assert refused.returncode == 1
    assert f"you may not ask this agent; it takes root, its own user and group {GROUP}" in refused.stderr
    assert grouped.json("segment", "list") == []
    assert f"refused ? (uid {SOMEBODY_UID}, vxagent[" in grouped.log()


def test_an_agent_that_is_not_root_obeys_root_and_its_own_user(own: UserAgent) -> None:
    own.up()
    assert ask_as(as_user(AGENT_UID), own, "status").returncode == 0
    assert own.cli("status").returncode == 0
    assert ask_as(as_user(SOMEBODY_UID), own, "status").returncode == 1

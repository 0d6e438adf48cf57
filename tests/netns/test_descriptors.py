"""A process that may open no more files: what it cannot look at it does not guess, and it goes on afterwards."""

from __future__ import annotations

import os
import queue
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from vxagent.core.effects import SetDevice
from vxagent.errors import HostError
from vxagent.lab.agent import Agent
from vxagent.lab.namespaces import Namespace
from vxagent.lab.waiting import wait_until
from vxagent.netlink.base import LinkChange
from vxagent.netlink.links import NetlinkLinks

PATIENCE_S = 10
TRIES = 10


@contextmanager
def no_descriptors() -> Iterator[None]:
    """For this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        limit = max(map(int, os.listdir("/proc/self/fd"))) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            while True:
                held.callback(os.close, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            yield


@pytest.fixture
def links(switch: Namespace) -> Iterator[NetlinkLinks]:
    """Of the switch's namespace."""
    with switch.entered():
        links = NetlinkLinks()
        try:
            yield links
        finally:
            links.close()


def test_devices_that_cannot_be_looked_at_are_no_answer(links: NetlinkLinks) -> None:
    with (
        no_descriptors(),
        pytest.raises(HostError, match="cannot read the devices: Too many open files; let the agent"),
    ):
        links.devices()
    assert [device.ifname for device in links.devices()] == ["lo"]


def test_a_device_that_cannot_be_found_is_not_taken_to_be_gone(switch: Namespace, links: NetlinkLinks) -> None:
    switch.ip_batch(["link add wa type veth peer name wb"])
    (ifindex,) = [device.ifindex for device in links.devices() if device.ifname == "wa"]
    with no_descriptors():
        links.set_device(SetDevice(ifindex=ifindex, ifname="wa", arp=False))
        with pytest.raises(HostError, match="cannot set device wa: Too many open files; let the agent open more"):
            links.set_device(SetDevice(ifindex=ifindex, ifname="wa", ipv6=False))
    assert "NOARP" in switch.ip("link", "show", "wa")


def test_who_follows_the_devices_hears_that_he_missed_something(switch: Namespace, links: NetlinkLinks) -> None:
    """Who is so slow that he looks only when he can again has missed nothing: then once more."""
    heard: queue.Queue[LinkChange | None] = queue.Queue()
    links.watch(heard.put)
    for mtu in range(1400, 1400 + TRIES):
        change_while_nothing_can_be_opened(switch, mtu)
        if (first := heard.get(timeout=PATIENCE_S)) is None:
            break
    assert first is None
    switch.ip("link", "set", "lo", "mtu", "1300")
    change = heard.get(timeout=PATIENCE_S)
    assert change is not None
    assert change.device is not None
    assert change.device.mtu == 1300


def change_while_nothing_can_be_opened(switch: Namespace, mtu: int) -> None:
    with switch.start("sh", "-c", f"read go; ip link set lo mtu {mtu}", stdin=subprocess.PIPE) as later:
        assert later.stdin is not None
        with no_descriptors():
            later.stdin.write("go\n")
            later.stdin.flush()
            wait_until(lambda: later.poll() is not None, what="the device is changed")


def held(pid: int) -> list[str]:
    """The kinds of BPF objects that a process has open, one for each."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return sorted(link.replace("_", "-") for link in links if link.startswith("anon_inode:bpf"))


def is_one_line_with_a_way_out(said: str) -> bool:
    """It names what failed, in words, and what the agent needs."""
    way_out = "; let the agent open more files: LimitNOFILE= of its unit, or `ulimit -n`\n"
    return said.endswith(way_out) and said.count("\n") == 1 and "Errno" not in said


@pytest.mark.parametrize("tables", ["the same tables", "other tables"])
def test_a_reload_that_lacks_a_file_keeps_nothing_of_what_it_loaded(agent: Agent, tables: str) -> None:
    """Wherever it fails: it takes some eight files, programs and their table first; tables that take over, more."""
    agent.up()
    before, pid = held(agent.pid), agent.pid
    if tables == "other tables":
        agent.config_file.write_text("fdb_entries = 2048\n")
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    refused = 0
    for more in range(3, 16):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + more, hard))
        said = agent.cli("reload", check=False)
        refused += said.returncode == 1
        assert said.returncode == 0 or is_one_line_with_a_way_out(said.stderr), said.stderr
        assert held(pid) == before, f"with room for {more - 1} more: {said.stderr}"
    assert refused > 5
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    agent.cli("reload")
    assert held(pid) == before
    assert len(list((agent.run_dir / "bpf").glob("v*"))) == 1

"""What the process needs of the machine."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from vxagent.errors import HostError, Refused
from vxagent.runtime import host
from vxagent.runtime.rundir import Started

HERE = Started(pid=1, version="1", netns=None, netns_id=host.netns_id(), state_dir="/s", config=None)
ELSEWHERE = replace(HERE, netns_id="net:[1]")


def test_a_namespace_has_a_name_or_a_path() -> None:
    assert host.netns_path("blue") == Path("/run/netns/blue")
    assert host.netns_path("/proc/1/ns/net") == Path("/proc/1/ns/net")


def test_a_namespace_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError, match="no network namespace at /run/netns/absent: No such file"):
        host.enter_netns(host.netns_path("absent"))


@pytest.mark.parametrize("started", [None, HERE, replace(ELSEWHERE, netns="/run/netns/gone")])
def test_a_switch_that_is_here_or_gone_is_in_nobodys_way(started: Started | None) -> None:
    host.check_same_netns(started)


def test_a_switch_in_another_namespace_is_in_the_way() -> None:
    with pytest.raises(Refused, match="take it off first with `vxagent down`"):
        host.check_same_netns(ELSEWHERE)


def test_going_back_finds_out_whether_the_devices_are_there() -> None:
    assert host.go_back(None)
    assert host.go_back(HERE)
    assert not host.go_back(replace(ELSEWHERE, netns="/run/netns/gone"))
    with pytest.raises(Refused, match="run `vxagent down` there"):
        host.go_back(ELSEWHERE)


def test_missing_capabilities_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "missing_capabilities", lambda: ["CAP_NET_ADMIN", "CAP_BPF"])
    with pytest.raises(HostError, match="this process lacks CAP_NET_ADMIN, CAP_BPF; run as root"):
        host.check_host()


@pytest.mark.parametrize("directory", ["run", "long" * 40])
def test_the_api_listens_for_owner_and_group_also_where_a_dead_agent_did(tmp_path: Path, directory: str) -> None:
    path = tmp_path / directory / "api.sock"
    path.parent.mkdir()
    path.touch()
    with host.listen_unix(path) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        there = os.open(path.parent, os.O_PATH)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(f"/proc/self/fd/{there}/api.sock")
            listener.accept()[0].close()
        os.close(there)


def test_the_api_listens_for_the_group_that_it_is_given(tmp_path: Path) -> None:
    others = [gid for gid in os.getgroups() if gid != os.getegid()] + ([4711] if os.geteuid() == 0 else [])
    path = tmp_path / "api.sock"
    with host.listen_unix(path, (others or [os.getegid()])[-1]):
        assert path.stat().st_gid == (others or [os.getegid()])[-1]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_port_that_is_taken_is_named() -> None:
    with host.listen_tcp("127.0.0.1", 0) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"cannot listen at 127.0.0.1 port {number} for metrics: Address already"):
            host.listen_tcp("127.0.0.1", number)


def test_metrics_listen_on_ipv6_too() -> None:
    with host.listen_tcp("::1", 0) as listener:
        assert listener.family is socket.AF_INET6


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    name = f"\0vxagent-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        host.tell_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host.tell_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    host.tell_manager("READY=1")

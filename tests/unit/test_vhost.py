"""Which taps vhost-net serves, by a /proc that a test makes; and what that adds to a device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vxagent.model.device import Device
from vxagent.netlink.vhost import taps_of_vhost
from vxagent.netlink.watch import Look

VHOST, TUN = "/dev/vhost-net", "/dev/net/tun"
TAP = Device(ifname="tap0", ifindex=7, kind="tun")


class Proc:
    """A /proc.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        for name in ("1", "self", "net", "sys"):
            (path / name / "fd").mkdir(parents=True)
        (path / "self" / "fd" / "3").symlink_to(VHOST)

    def process(self, number: int, *fds: str, **taps: str) -> Path:
        """A process with these files open from 3 on, the taps (`fd5="tap0"`) among them; return its directory."""
        process = self.path / str(number)
        for part in ("fd", "fdinfo"):
            (process / part).mkdir(parents=True)
        for fd, of in enumerate(fds, 3):
            (process / "fd" / str(fd)).symlink_to(of)
            (process / "fdinfo" / str(fd)).write_text("pos:\t0\nflags:\t0104002\nmnt_id:\t26\nino:\t124\n")
        for key, tap in taps.items():
            with (process / "fdinfo" / key.removeprefix("fd")).open("a") as info:
                info.write(f"iff:\t{tap}\n")
        return process


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


class DeniedProc(type(Path())):  # type: ignore[misc]  # the class of this system's paths
    """A /proc with one process more, which may not be looked at; root may look at all that the file system has."""

    def glob(self, pattern: str) -> Iterator[Path]:
        yield from Path(self).glob(pattern)
        yield DeniedProcess(self / "99")


class DeniedProcess(type(Path())):  # type: ignore[misc]  # the same
    """Its parts may not be read."""

    def __truediv__(self, key: str) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{self}/{key}")


class FullProc(DeniedProc):
    """A /proc that cannot be read for want of descriptors."""

    def glob(self, pattern: str) -> Iterator[Path]:
        yield from Path(self).glob(pattern)
        yield FullProcess(self / "99")


class FullProcess(type(Path())):  # type: ignore[misc]  # the same
    """One of its processes."""

    def __truediv__(self, key: str) -> Path:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), f"{self}/{key}")


class BusyProc(type(Path())):  # type: ignore[misc]  # the same
    """A /proc whose processes close their descriptor 3 right after it was listed."""

    def glob(self, pattern: str) -> Iterator[Path]:
        for process in Path(self).glob(pattern):
            yield BusyProcess(process)


class BusyProcess(type(Path())):  # type: ignore[misc]  # the same
    """Such a process."""

    def __truediv__(self, key: str) -> Path:
        part = Path(self) / key
        return Closing(part) if key == "fd" else part


class Closing(type(Path())):  # type: ignore[misc]  # the same
    """A directory that loses the name 3 when it has been listed."""

    def __str__(self) -> str:
        (Path(os.fspath(self)) / "3").unlink(missing_ok=True)
        return os.fspath(self)

    def __fspath__(self) -> str:
        return str(super().__str__())


def test_a_tap_beside_vhost_net_is_found(proc: Proc) -> None:
    proc.process(10, "/dev/null", TUN, "socket:[123]", VHOST, "anon_inode:kvm-vm", fd4="tap0")
    assert taps_of_vhost(proc.path) == {"tap0"}


def test_all_taps_of_all_holders_are_found(proc: Proc) -> None:
    proc.process(10, VHOST, TUN, TUN, fd4="tap0", fd5="tap1")
    proc.process(11, TUN, VHOST, VHOST, fd3="tap2")
    assert taps_of_vhost(proc.path) == {"tap0", "tap1", "tap2"}


@pytest.mark.parametrize(
    "fds",
    [(TUN, "/dev/kvm"), ("/dev/kvm", VHOST), (TUN, "/dev/vhost-vsock"), (TUN, "/tmp/vhost-net.log")],
    ids=["no vhost", "no tap", "another vhost", "a log"],
)
def test_a_process_without_both_has_no_tap_of_vhost(proc: Proc, fds: tuple[str, ...]) -> None:
    proc.process(10, *fds, fd3="tap0")
    assert taps_of_vhost(proc.path) == set()


def test_vhost_net_of_another_process_does_not_count(proc: Proc) -> None:
    proc.process(10, TUN, fd3="tap0")
    proc.process(11, VHOST)
    assert taps_of_vhost(proc.path) == set()


def test_devices_of_another_mount_namespace_are_known_by_their_names(proc: Proc) -> None:
    """The kernel shows a path that cannot be reached from here as it is below its own mount."""
    proc.process(10, "/net/tun", "/vhost-net", fd3="tap0")
    assert taps_of_vhost(proc.path) == {"tap0"}


def test_a_process_that_ends_meanwhile_hides_no_other(proc: Proc) -> None:
    (proc.path / "9").mkdir()  # it has no descriptors any more
    proc.process(10, TUN, VHOST, fd3="tap0")
    assert taps_of_vhost(proc.path) == {"tap0"}


def test_a_descriptor_closed_before_it_is_looked_at_hides_no_other(proc: Proc) -> None:
    process = proc.process(10, "/dev/null", TUN, VHOST, fd4="tap0")
    assert taps_of_vhost(BusyProc(proc.path)) == {"tap0"}
    assert not (process / "fd" / "3").is_symlink()


def test_a_tap_closed_before_its_name_is_read_hides_no_other(proc: Proc) -> None:
    process = proc.process(10, TUN, TUN, VHOST, fd3="tap0", fd4="tap1")
    (process / "fdinfo" / "3").unlink()
    assert taps_of_vhost(proc.path) == {"tap1"}


@pytest.mark.parametrize("kind", [DeniedProc, FullProc])
def test_where_not_all_can_be_seen_nothing_is_said(proc: Proc, kind: type[DeniedProc]) -> None:
    proc.process(10, TUN, VHOST, fd3="tap0")
    assert taps_of_vhost(kind(proc.path)) is None


def test_where_the_processes_of_others_are_hidden_nothing_is_said(proc: Proc) -> None:
    (proc.path / "1" / "fd").rmdir()
    (proc.path / "1").rmdir()
    assert taps_of_vhost(proc.path) is None


def test_the_processes_of_this_machine_can_be_looked_at() -> None:
    found = taps_of_vhost()
    assert found is None or all(isinstance(name, str) for name in found)


# What it adds to a device


@pytest.fixture
def look(proc: Proc, tmp_path: Path) -> Look:
    """On a host with vhost-net, where a process serves tap0 by it."""
    (tmp_path / "vhost-net").touch()
    proc.process(10, TUN, VHOST, fd3="tap0")
    return Look(places=(tmp_path / "vhost-net",), proc=proc.path)


def test_a_tap_of_vhost_shows_it(look: Look) -> None:
    assert look(TAP) == replace(TAP, vhost=True)
    assert look(replace(TAP, ifname="tap1")) == replace(TAP, ifname="tap1")


def test_a_tap_that_vhost_let_go_of_shows_it_when_looked_at_anew(look: Look, proc: Proc) -> None:
    assert look(TAP).vhost
    (proc.path / "10" / "fd" / "4").unlink()
    look.anew()
    assert not look(replace(TAP, vhost=True)).vhost


def test_processes_are_looked_at_once_for_all_taps_until_anew(look: Look, proc: Proc) -> None:
    assert not look(replace(TAP, ifname="tap1")).vhost
    proc.process(11, TUN, VHOST, fd3="tap1")
    assert not look(replace(TAP, ifname="tap1")).vhost
    look.anew()
    assert look(replace(TAP, ifname="tap1")).vhost


def test_only_a_tap_that_somebody_holds_can_be_of_vhost(look: Look) -> None:
    for device in (replace(TAP, carrier=False), replace(TAP, kind="veth")):
        assert look(device) == device


def test_without_vhost_net_no_tap_is_of_it(proc: Proc, tmp_path: Path) -> None:
    proc.process(10, TUN, VHOST, fd3="tap0")
    assert Look(places=(tmp_path / "nothing",), proc=proc.path)(TAP) == TAP


def test_where_not_all_can_be_seen_any_tap_may_be_of_vhost(proc: Proc, tmp_path: Path) -> None:
    (tmp_path / "vhost-net").touch()
    assert Look(places=(tmp_path / "vhost-net",), proc=DeniedProc(proc.path))(TAP) == replace(TAP, unseen=True)


def test_hardware_that_is_gone_has_no_offloads() -> None:
    device = Device(ifname="no-such-device"[:15], ifindex=3)
    assert Look()(device) == device

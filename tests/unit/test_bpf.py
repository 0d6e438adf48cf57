"""What of the bpf(2) modules needs no kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from vxagent.datapath import bpf, bpffs
from vxagent.datapath.bpf_prog import relocate
from vxagent.errors import HostError


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-3,8\n", 5), ("0,2-3,64-127", 67)])
def test_possible_cpus_are_counted(text: str, count: int) -> None:
    assert bpf.parse_cpus(text) == count


@pytest.mark.parametrize("release", ["6.1.0-13-amd64", "6.18.44", "7.0-rc1", "10.0"])
def test_a_kernel_from_the_floor_on_is_taken(release: str) -> None:
    bpf.check_kernel(release)


@pytest.mark.parametrize("release", ["5.15.0-91-generic", "6.0.19", "4.19"])
def test_an_older_kernel_is_refused(release: str) -> None:
    with pytest.raises(HostError, match=rf"kernel {release} is too old; vxagent needs 6\.1 or newer"):
        bpf.check_kernel(release)


def test_an_error_says_what_the_verifier_said_last() -> None:
    log = "0: (b7) r0 = 0\nR1 invalid mem access 'scalar'\nprocessed 2 insns (limit 1000000) peak_states 0\n"
    error = bpf.BpfError("load program vx_tc", errno.EINVAL, log)
    assert str(error) == "cannot load program vx_tc: Invalid argument: R1 invalid mem access 'scalar'"
    assert error.log == log


def _status(effective: int) -> str:
    return f"Name:\tpython3\nCapPrm:\t{0:016x}\nCapEff:\t{effective:016x}\n"


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        (0, ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
        (1 << 12 | 1 << 38 | 1 << 39, []),
        (1 << 12 | 1 << 21, []),
        (1 << 39, ["CAP_NET_ADMIN", "CAP_PERFMON"]),
    ],
    ids=["none", "all three", "NET_ADMIN and SYS_ADMIN", "only BPF"],
)
def test_missing_capabilities_are_named(effective: int, missing: list[str]) -> None:
    assert bpf.missing_capabilities(_status(effective)) == missing


def _insn(opcode: int, registers: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", opcode, registers, 0, immediate)


LOAD_MAP = 0x18, 0x11  # r1 = a map
LOAD_NUMBER = 0x18, 0x01  # r1 = a 64-bit number
REST = _insn(0, 0, 0)  # the second half of either
EXIT = _insn(0x95, 0, 0)


def test_relocation_replaces_sentinels_only_where_a_map_is_meant() -> None:
    code = _insn(*LOAD_NUMBER, 7) + REST + _insn(*LOAD_MAP, 7) + REST + EXIT
    assert relocate(code, {7: 42}) == _insn(*LOAD_NUMBER, 7) + REST + _insn(*LOAD_MAP, 42) + REST + EXIT


def test_the_second_half_of_a_load_is_no_instruction() -> None:
    looks_like_a_load = _insn(*LOAD_MAP, 9)
    code = _insn(*LOAD_NUMBER, 1) + looks_like_a_load + EXIT
    assert relocate(code, {}) == code


def test_an_undeclared_map_is_refused() -> None:
    with pytest.raises(HostError, match="names map 0x7e000063"):
        relocate(_insn(*LOAD_MAP, 0x7E000063) + REST, {})


MOUNTS = """\
22 1 0:21 / / rw - ext4 /dev/vda rw
30 22 0:25 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700
31 22 0:26 / /run/a\\040b/bpf rw - bpf vxagent rw
32 22 0:27 / /mnt rw - bpf vxagent rw
33 32 0:28 / /mnt rw - tmpfs tmpfs rw
34 30 0:29 / /sys/fs/bpf rw - tmpfs tmpfs rw
35 34 0:25 /vxagent /sys/fs/bpf/vxagent rw shared:12 master:9 - bpf vxagent rw
"""


@pytest.mark.parametrize(
    ("path", "source"),
    [("/sys/fs/bpf/vxagent", "vxagent"), ("/run/a b/bpf", "vxagent"), ("/mnt", None), ("/sys", None)],
    ids=["the host's", "ours, with a blank", "covered by another", "none"],
)
def test_a_bpffs_is_found_in_mountinfo(path: str, source: str | None) -> None:
    assert bpffs.source_at(path, MOUNTS) == source


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/sys/fs/bpf/vxagent/links", "bpf"), ("/sys/fs/bpf/other", "tmpfs"), ("/run/a b", "ext4"), ("/mnt/x", "tmpfs")],
    ids=["bound from the host's", "beside it", "below the root", "covered by another"],
)
def test_what_a_path_lies_in_is_found_in_mountinfo(path: str, kind: str) -> None:
    mount = bpffs.mount_of(path, MOUNTS)
    assert mount is not None
    assert mount.kind == kind


def test_a_bpffs_that_came_from_the_host_does_not_vanish() -> None:
    assert bpffs.vanishing(MOUNTS) == ["/run/a b/bpf", "/mnt"]

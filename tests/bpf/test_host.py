"""What the loader wants of the host: a bpffs, and rights."""

from __future__ import annotations

import os
import subprocess

import pytest

from support.nobody import AS_NOBODY, UID
from support.place import Place
from vxagent.datapath import bpf, bpffs
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.errors import HostError

OPEN = """
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.errors import HostError
try:
    BpfDatapath(root, cache).open()
except HostError as error:
    print(error)
"""


def _mount(place: Place, owner: int = 0) -> None:
    place.root.mkdir()
    subprocess.run(["mount", "-t", "bpf", "-o", f"uid={owner}", "bpf", place.root], check=True)


def test_a_bpffs_is_mounted_where_none_is(place: Place) -> None:
    place.opened()
    assert f" {place.root} " in _mounts()


def test_a_bpffs_that_somebody_mounted_is_used_and_left(place: Place) -> None:
    _mount(place)
    try:
        place.opened().destroy()
        assert _mounts().count(f" {place.root} ") == 1
        assert {path.name for path in place.root.iterdir()} <= {"maps.debug", "progs.debug"}  # the kernel's own
    finally:
        subprocess.run(["umount", place.root], check=True)
        place.root.rmdir()


def test_pins_of_the_default_run_dir_go_into_the_hosts_bpffs(place: Place) -> None:
    assert bpffs.mount_point(bpffs.HOST_BPFFS / "vxagent") == bpffs.HOST_BPFFS
    assert bpffs.mount_point(place.root) == place.root


def test_without_the_right_to_mount_it_says_what_to_do(place: Place) -> None:
    place.root.mkdir()
    os.chmod(place.root.parent, 0o755)
    child = place.python(OPEN, *AS_NOBODY)
    assert f"no bpffs at {place.root}, and only root mounts one; run as root, or have root do: mkdir" in child.stdout


def test_missing_capabilities_are_named(place: Place) -> None:
    os.chmod(place.root.parent, 0o755)
    _mount(place, owner=UID)
    try:
        child = place.python(OPEN, *AS_NOBODY)
    finally:
        subprocess.run(["umount", place.root], check=True)
        place.root.rmdir()
    assert "Operation not permitted; run as root or with CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF" in child.stdout, child


def test_a_private_mount_namespace_is_warned_of(place: Place) -> None:
    host = f"from vxagent.datapath import bpffs\nbpffs._HOST_NAMESPACE = Path('/proc/{os.getpid()}/ns/mnt')\n"
    child = place.python(host + OPEN, "unshare", "--mount")
    assert f"the bpffs at {place.root} is mounted in a private mount namespace" in child.stderr


def test_the_verifiers_words_are_kept() -> None:
    returns_nothing = bytes.fromhex("9500000000000000")  # exit, without an r0
    with pytest.raises(bpf.BpfError) as raised:
        Program.load(ProgSpec(name="wrong", type=ProgType.SCHED_CLS), returns_nothing)
    assert "exit" in raised.value.log
    assert str(raised.value) == "cannot load program wrong: Permission denied: R0 !read_ok"


def test_a_map_that_cannot_be_made_is_named() -> None:
    with pytest.raises(HostError, match="cannot create map impossible: Invalid argument"):
        Map.create(MapSpec(name="impossible", type=MapType.ARRAY, key_size=8, value_size=8, max_entries=1))


def _mounts() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()

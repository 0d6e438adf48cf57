"""The large guest: Debian with systemd, Python and BCC, in which vxagent can be installed.

/opt/vxagent is a virtual environment that has all that vxagent needs, but not vxagent: pip takes minutes under TCG.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vm.lab.cache import FILES, build, made
from vm.lab.kernels import Kernel
from vm.lab.wheel import needed, wheels

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps"),
    *("python3", "python3-venv", "python3-bpfcc", "linux-libc-dev", "busybox-static"),
    *("iproute2", "iputils-ping", "iperf3", "ethtool", "openvswitch-switch"),
)
SIZE = "4G"  # of the disk; the file is sparse

_SETUP = """
cd "$1"
mkdir -p lib/modules
install -D -m 644 {files}/vxagent-lab.service etc/systemd/system/vxagent-lab.service
chroot . systemctl enable -q vxagent-lab.service
chroot . systemctl mask -q serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service \
    modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    modprobe@loop.service systemd-binfmt.service systemd-pstore.service
chroot . systemctl disable -q openvswitch-switch.service ovs-vswitchd.service ovsdb-server.service
cp -r {wheels} tmp/wheels
chroot . python3 -m venv /opt/vxagent
chroot . /opt/vxagent/bin/pip install --quiet --no-index --find-links /tmp/wheels {needed}
rm -r tmp/wheels
ln -s /opt/vxagent/bin/vxagent usr/local/bin/vxagent
echo hypervisor >etc/hostname
echo 127.0.0.1 localhost hypervisor >etc/hosts
"""


def debian(kernels: Sequence[Kernel]) -> Path:
    """An ext4 image of the system with the modules of these kernels; about two minutes when it is not in the cache."""
    unit = FILES.joinpath("vxagent-lab.service").read_text()
    recipe = [SUITE, SIZE, _SETUP, *PACKAGES, unit, *needed(), *(kernel.release for kernel in kernels)]
    return made("debian", recipe, lambda path: _bootstrap(path, kernels))


def _bootstrap(path: Path, kernels: Sequence[Kernel]) -> None:
    root = path.parent / "root"
    hook = path.parent / "setup"
    setup = _SETUP.format(files=FILES, wheels=wheels(), needed=shlex.join(needed()))
    hook.write_text(f"#!/bin/sh\nset -eu\n{setup}")
    hook.chmod(0o755)
    build(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--customize-hook={hook}", SUITE, str(root), *_sources()),
    )
    for kernel in kernels:
        build("cp", "-a", str(kernel.tree / "lib/modules" / kernel.release), str(root / "lib/modules/"))
    build("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(path), SIZE)


def _sources() -> list[str]:
    """Where this machine gets its packages from is where the guest's come from."""
    places = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))
    return [str(place) for place in places if place.suffix in (".list", ".sources") and place.is_file()]

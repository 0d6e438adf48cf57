"""Kernels as Debian ships them, unpacked and not installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vm.lab.cache import BuildFailed, build, made

PACKAGES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""Series → the package that depends on its latest kernel. 6.12 is in Debian 12's security archive."""

_IMAGE = re.compile(r"Depends: (linux-image-\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel to boot.

    Attributes:
        series: "6.1", "6.12".
        release: what `uname -r` says.
        tree: /boot and /lib/modules of it are below.
    """

    series: str
    release: str
    tree: Path

    @property
    def image(self) -> Path:
        """What QEMU boots."""
        return self.tree / "boot" / f"vmlinuz-{self.release}"

    def module_files(self, *names: str) -> list[Path]:
        """The files of these modules and of all that they need, in an order in which they load."""
        found: dict[Path, None] = {}
        for name in names:
            said = build("modprobe", "-d", str(self.tree), "-S", self.release, "--show-depends", name)
            found.update((Path(line.split()[1]), None) for line in said.splitlines() if line.startswith("insmod"))
        return list(found)


def kernel(series: str) -> Kernel:
    """The latest kernel of a series; downloads it when it is not in the cache.

    Raises:
        BuildFailed: the package archive does not have it.
    """
    package = _latest(PACKAGES[series])
    release = package.removeprefix("linux-image-")
    tree = made(f"kernel-{series}", [package], lambda path: _unpack(package, release, path))
    return Kernel(series=series, release=release, tree=tree)


def _latest(package: str) -> str:
    """The package that a metapackage stands for."""
    for refresh in (False, True):  # a new machine has no lists yet
        if refresh:
            build("apt-get", "update", "-qq")
        try:
            if found := _IMAGE.search(build("apt-cache", "depends", package)):
                return found[1]
        except BuildFailed:
            continue
    raise BuildFailed(f"the package archive has no {package}")


def _unpack(package: str, release: str, path: Path) -> None:
    path.mkdir()
    place = path.parent
    try:
        build("apt-get", "download", "-qq", package, cwd=place)
    except BuildFailed:  # the lists are older than the archive
        build("apt-get", "update", "-qq")
        build("apt-get", "download", "-qq", package, cwd=place)
    [archive] = place.glob("*.deb")
    build("dpkg-deb", "--extract", str(archive), str(path))
    archive.unlink()
    build("depmod", "-b", str(path), release)

"""The small guest, which is also how the large one starts: busybox, iperf3 and the modules that find its devices."""

from __future__ import annotations

import lzma
import re
import shutil
from pathlib import Path

from vm.lab.cache import FILES, build, made
from vm.lab.kernels import Kernel
from vm.lab.programs import PROGRAMS, programs, sources

MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "vmxnet3", "8021q")
"""NICs are named as their modules come: here, before anybody is told that the guest is up."""

_SCRIPTS = {"init": "init", "channel": "bin/channel", "udhcpc": "bin/got-lease"}
_LIBRARY = re.compile(r"(/\S+) \(0x")


def initramfs(kernel: Kernel) -> Path:
    """An archive to boot this kernel with."""
    busybox, iperf3 = _program("busybox"), _program("iperf3")
    recipe = [
        kernel.release,
        *MODULES,
        *(FILES.joinpath(name).read_text() for name in _SCRIPTS),
        *sources(),
    ]
    recipe += [f"{path} {path.stat().st_mtime_ns}" for path in (busybox, iperf3)]
    return made(f"initramfs-{kernel.series}", recipe, lambda path: _pack(path, kernel, busybox, iperf3))


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; run `make vm-setup`")
    return Path(found)


def _pack(path: Path, kernel: Kernel, busybox: Path, iperf3: Path) -> None:
    root = path.parent / "root"
    for name in ("bin", "dev", "modules", "proc", "root", "sys"):
        root.joinpath(name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for library in (iperf3, *map(Path, _LIBRARY.findall(build("ldd", str(iperf3))))):
        target = root / str(library).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    for name, place in _SCRIPTS.items():
        shutil.copy(FILES / name, root / place)
        root.joinpath(place).chmod(0o755)
    for program in PROGRAMS:
        shutil.copy(programs() / program, root / "bin" / program)
    for number, module in enumerate(kernel.module_files(*MODULES)):
        code = module.read_bytes()
        if module.suffix == ".xz":  # insmod of busybox takes plain ones
            code = lzma.decompress(code)
        root.joinpath("modules", f"{number:02}-{module.name.split('.')[0]}.ko").write_bytes(code)
    build("sh", "-euc", f"cd {root}; find . | cpio --quiet -o -H newc | zstd -q -o {path}")

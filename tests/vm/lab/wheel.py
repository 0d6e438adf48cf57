"""vxagent as it is installed: the wheel of this tree on a disk for a guest, and the wheels of all that it needs."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from vm.lab.cache import build, made

TREE = Path(__file__).parents[3]
PARTS = ("agent", "bpf", "cli", "packaging")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def media() -> Path:
    """A disk that holds the wheel of this tree, in a tar archive. See INSTALL."""
    return made("media", [TREE.joinpath("pyproject.toml").read_text(), *_contents()], _pack)


def wheels() -> Path:
    """A directory with the wheels that vxagent needs, as they were when the list of them last changed."""
    return made("wheels", needed(), _download)


def needed() -> list[str]:
    """What vxagent depends on, as pyproject.toml has it."""
    found: list[str] = tomllib.loads(TREE.joinpath("pyproject.toml").read_text())["project"]["dependencies"]
    return found


INSTALL = """
set -e
tar -C /run -xf /dev/vdb
/opt/vxagent/bin/pip install --quiet --no-index --no-deps --force-reinstall /run/vxagent-*.whl
"""
"""What a guest that has this disk as its second one does to have `vxagent`; nothing is compiled."""


def _contents() -> Iterator[str]:
    """All that the wheel is made of."""
    paths = [path for part in PARTS for path in TREE.joinpath(part).rglob("*")]
    for path in sorted(paths):
        if path.is_file() and path.parent.name != "__pycache__":
            yield f"{path.relative_to(TREE)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _pack(path: Path) -> None:
    place = path.parent
    build(*_PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(TREE))
    [wheel] = place.glob("vxagent-*.whl")
    build("tar", "-cf", str(path), "-C", str(place), wheel.name)


def _download(path: Path) -> None:
    path.mkdir()
    build(*_PIP, "download", "--only-binary", ":all:", "--dest", str(path), *needed())

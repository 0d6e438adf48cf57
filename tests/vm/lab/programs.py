"""What makes and takes traffic, compiled once: it runs in guests and on this machine."""

from __future__ import annotations

from pathlib import Path

from vm.lab.cache import FILES, build, made

PROGRAMS = ("bulk", "spray", "verify")


def sources() -> list[str]:
    """Their texts."""
    return [FILES.joinpath(f"{program}.c").read_text() for program in PROGRAMS]


def programs() -> Path:
    """A directory with all of them, linked statically."""
    return made("programs", sources(), _compile)


def _compile(path: Path) -> None:
    path.mkdir()
    for program in PROGRAMS:
        build("gcc", "-O2", "-Wall", "-static", "-o", str(path / program), str(FILES / f"{program}.c"))

"""Bytecode of the C sources: shipped, cached or compiled, whichever comes first.

1. shipped beside this package (``make build``, the wheel), if made from these very sources and flags;
2. the cache, by hash of sources and flags and by BCC version;
3. compiled now, which needs python3-bpfcc.

``python -m vxagent.datapath.source build [DIRECTORY]`` makes what is shipped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vxagent.datapath import bytecode, maps, programs, toolchain
from vxagent.datapath.bytecode import Bytecode
from vxagent.errors import HostError

_PACKAGE = Path(__file__).resolve().parent.parent
_DIRECTORIES = (_PACKAGE / "bpf", _PACKAGE.parent.parent / "bpf")  # in a wheel, in the repository
_MAIN = "vxagent.c"
_FILE = "vxagent.json"
SHIPPED = _PACKAGE / "bytecode" / _FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What to compile, and how.

    Attributes:
        main: the C file with the programs.
        directory: ``bpf/``: where it looks for headers, and the header shim in it.
        flags: further compiler flags.
        programs: the functions wanted.
    """

    main: Path
    directory: Path
    flags: tuple[str, ...]
    programs: tuple[str, ...]

    @classmethod
    def of(cls, main: Path, names: Iterable[str], *, map_names: Iterable[str] = ()) -> Source:
        """A C file that may include the switch's headers and use its maps, such as a test's.

        Args:
            names: its programs.
            map_names: its own maps, beside the switch's.

        Raises:
            HostError: the headers are not there.
        """
        numbers = maps.sentinels(map_names)
        flags = tuple(f"-DFD_{name}={number:#x}" for name, number in numbers.items())
        return cls(main=main, directory=find_directory(), flags=flags, programs=tuple(names))

    def digest(self) -> str:
        """Hash of every file that can take part, the flags and the programs."""
        headers = {*self.directory.rglob("*.h"), *self.main.parent.glob("*.h")}
        contents = [part for path in (self.main, *sorted(headers)) for part in (path.name, path.read_bytes())]
        return bytecode.hash_of(*contents, *self.flags, *self.programs)


def find_directory() -> Path:
    """``bpf/`` of the installed package, or of the repository that this file stands in.

    Raises:
        HostError: neither is there.
    """
    for directory in _DIRECTORIES:
        if (directory / "abi.h").is_file():
            return directory
    raise HostError(f"the C sources are missing beside {_PACKAGE}", "install vxagent again")


def abi() -> bytes:
    """What the C sources and this package have to agree on, as it is on the disk now.

    Raises:
        HostError: it is not there.
    """
    return (find_directory() / "abi.h").read_bytes()


def switch() -> Source:
    """The switch itself.

    Raises:
        HostError: its C sources are not there.
    """
    return Source.of(find_directory() / _MAIN, [spec.name for spec in programs.PROGRAMS])


def load(cache: Path, source: Source | None = None, *, shipped: Path = SHIPPED) -> Bytecode:
    """Bytecode of the switch (or of `source`), from the quickest place that has it.

    Args:
        cache: directory for what was compiled here; made if need be. Not being able to write is no failure.

    Raises:
        HostError: neither shipped nor cached, and BCC is missing or does not compile it.
    """
    source = source or switch()
    digest = source.digest()
    found = bytecode.read(shipped, digest)
    if found is not None:
        return found
    path = cache / f"{digest}-bcc{toolchain.bcc_version()}.json"
    return bytecode.read(path, digest) or _compile_into(path, digest, source)


def build(path: Path = SHIPPED) -> None:
    """Compile the switch and write what the wheel ships.

    Raises:
        HostError: BCC is missing or does not compile it.
        OSError: the file cannot be written.
    """
    source = switch()
    bytecode.write(path, source.digest(), _compile(source))


def _compile(source: Source) -> Bytecode:
    return toolchain.compile_programs(source.main, source.directory, source.flags, source.programs)


def _compile_into(path: Path, digest: str, source: Source) -> Bytecode:
    code = _compile(source)
    try:
        bytecode.write(path, digest, code)
    except OSError as exc:
        log.warning("cannot keep bytecode in %s: %s", path.parent, exc.strerror)
    return code


def main(arguments: list[str]) -> int:
    """``build [DIRECTORY]``; 2 is wrong usage."""
    match arguments:
        case ["build"]:
            build()
        case ["build", directory]:
            build(Path(directory) / _FILE)
        case _:
            sys.stderr.write("usage: python -m vxagent.datapath.source build [DIRECTORY]\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HostError as exc:
        sys.exit(f"vxagent: {exc}")

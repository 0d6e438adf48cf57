"""The system's BCC: which one it is, and compiling with it in a child process (`compiler.py`)."""

from __future__ import annotations

import base64
import json
import logging
import re
import signal
import subprocess
from pathlib import Path

from vxagent.datapath import compiler
from vxagent.datapath.bytecode import Bytecode
from vxagent.errors import HostError

SYSTEM_PYTHON = Path("/usr/bin/python3")  # the one that Debian's python3-bpfcc belongs to
BCC_FLOOR = (0, 26)
INSTALL_BCC = "install BCC: apt-get install python3-bpfcc"

INSTALL_HEADERS = "install the kernel's UAPI headers: apt-get install linux-libc-dev"

_SYSTEM_HEADER_MISSING = re.compile(r"'(?:linux|asm)/[^']+' file not found")
_VERSION_FILES = (
    "usr/lib/python3/dist-packages/bcc/version.py",  # Debian, Ubuntu
    "usr/lib/python3.*/site-packages/bcc/version.py",  # Fedora, SUSE, Arch
)
_TIMEOUT_S = 120

log = logging.getLogger(__name__)


class CompileError(HostError):
    """The C sources do not compile.

    Attributes:
        output: all that the compiler said.
    """

    def __init__(self, main: Path, why: str, output: str) -> None:
        self.output = output
        mend = INSTALL_HEADERS if _SYSTEM_HEADER_MISSING.search(output) else ""
        super().__init__(f"cannot compile {main.name}: {why}", mend)


def bcc_version() -> str:
    """The version of the system's BCC, read without importing it.

    Raises:
        HostError: there is none, or it is too old.
    """
    files = [file for pattern in _VERSION_FILES for file in sorted(Path("/").glob(pattern))]
    found = re.search(r"__version__ = '([^']+)'", files[0].read_text()) if files else None
    if found is None:
        raise HostError("BCC is not installed", INSTALL_BCC)
    version = found.group(1)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < BCC_FLOOR:
        raise HostError(f"BCC {version} is too old", f"vxagent needs {'.'.join(map(str, BCC_FLOOR))} or newer")
    return version


def compile_programs(main: Path, directory: Path, flags: tuple[str, ...], names: tuple[str, ...]) -> Bytecode:
    """Compile in a child process.

    Args:
        main: the C file with the programs.
        directory: ``bpf/``, for headers.
        flags: further compiler flags.
        names: the programs' functions.

    Raises:
        CompileError: the C is wrong, or LLVM gave up.
        HostError: BCC is missing.
    """
    request = {
        "main": str(main),
        "include": [str(directory), str(main.parent)],
        "shim": str(directory / "shim"),
        "flags": flags,
        "programs": names,
    }
    child = _run(json.dumps(request), main)
    said = child.stderr.replace("/virtual/main.c", main.name)  # BCC's name for what it is given as text
    if child.returncode == compiler.EXIT_NO_BCC:
        raise HostError(f"{SYSTEM_PYTHON} cannot import bcc: {_last_line(said)}", INSTALL_BCC)
    if child.returncode != 0:
        raise CompileError(main, _why(child.returncode, said), said)
    if said:
        log.warning("compiling %s: %s", main.name, said.strip())
    answer = json.loads(child.stdout)
    code = {name: base64.b64decode(text) for name, text in answer["programs"].items()}
    return Bytecode(programs=code, bcc=answer["bcc"], llvm=answer["llvm"])


def _run(request: str, main: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [SYSTEM_PYTHON, "-I", compiler.__file__],
            input=request,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(f"{SYSTEM_PYTHON} is missing", INSTALL_BCC) from None
    except subprocess.TimeoutExpired:
        raise CompileError(main, f"not done after {_TIMEOUT_S} s", "") from None


def _why(status: int, said: str) -> str:
    """One line out of the compiler's many: the first error, and how the child ended."""
    errors = [line for line in said.splitlines() if "error:" in line.lower()]
    line = errors[0] if errors else _last_line(said)
    how = f"the compiler died of {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return f"{line} ({how})" if line else how


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""

"""The child process that compiles: C in, bytecode out.

Run as ``/usr/bin/python3 -I compiler.py``, because BCC belongs to the system's Python, costs 60 MB and
lets LLVM end the whole process on some errors. Needs the standard library and `bcc`, nothing of vxagent.

stdin: {"main": path, "include": [directories], "shim": directory, "flags": ["-D…"], "programs": [names]}
stdout: {"bcc": version, "llvm": version, "programs": {name: base64}}
stderr: what the compiler says. Exit status 0, 1 (does not compile), 4 (no BCC) or a signal (LLVM gave up).
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import sysconfig
from typing import Any

EXIT_FAILED = 1
EXIT_NO_BCC = 4


def compile_programs(request: dict[str, Any], bpf_module: Any) -> dict[str, str]:
    """Name → base64 of its bytecode."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    system = ["/usr/include", f"/usr/include/{multiarch}"]
    flags = [
        *(f"-I{directory}" for directory in request["include"]),
        *(f"-isystem{directory}" for directory in system),
        *request["flags"],
    ]
    with open(request["main"], encoding="utf-8") as file:
        text = file.read()
    module = bpf_module(text=text, cflags=flags)
    return {name: base64.b64encode(module.dump_func(name)).decode() for name in request["programs"]}


def llvm_version() -> str:
    """The version in the name of the libLLVM that BCC brought along, or ""."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        found = re.search(r"libLLVM[-.]?(?:so\.)?([0-9]+(?:\.[0-9]+)*)", file.read())
    return found.group(1) if found else ""


def main() -> int:
    """Read the request, write the answer."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print is no part of the answer
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["shim"]
    try:
        import bcc  # noqa: PLC0415  # heavy: in the child alone
    except (ImportError, OSError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_NO_BCC
    try:
        programs = compile_programs(request, bcc.BPF)
    except Exception as exc:  # BCC raises bare Exception
        print(exc, file=sys.stderr)
        return EXIT_FAILED
    with answer:
        json.dump({"bcc": bcc.__version__, "llvm": llvm_version(), "programs": programs}, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Namespaces of this machine, as others of the lab's hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from vm.lab.cache import FILES
from vm.lab.channel import Result
from vm.lab.guest import COMMAND_TIMEOUT_S, GuestError
from vm.lab.programs import programs
from vxagent.lab.namespaces import Namespace

_pool = ThreadPoolExecutor(thread_name_prefix="here")


class Here:
    """A network namespace of this machine, in which the lab's traffic can be made as in a guest."""

    def __init__(self, namespace: Namespace) -> None:
        self.name = namespace.name
        self._namespace = namespace

    def sh(self, script: str, *, check: bool = True) -> Result:
        """See Guest.sh."""
        result = self.begin(script).result(COMMAND_TIMEOUT_S)
        if check and result.code != 0:
            raise GuestError(f"{self.name}: {script} ended with {result.code}: {result.output.strip()}")
        return result

    def begin(self, script: str) -> Future[Result]:
        """See Guest.begin. What goes on to run ends with the namespace."""
        process = self._namespace.start(
            *("sh", "-c", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": f"{programs()}:{os.environ['PATH']}"},
        )
        return _pool.submit(_finish, process)

    def script(self, file: str) -> str:
        """See Inside.script."""
        return f"{sys.executable} {FILES / file}"


def _finish(process: subprocess.Popen[str]) -> Result:
    output, _ = process.communicate()
    return Result(code=process.returncode, output=output)

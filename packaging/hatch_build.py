"""Build hook of the wheel: compiles bpf/ and puts sources and bytecode beside the agent.

An editable install needs neither: it finds bpf/ in the tree, and `make build` makes the bytecode there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BYTECODE = "agent/vxagent/bytecode"


class BytecodeHook(BuildHookInterface[Any]):
    """Adds `vxagent/bpf` and `vxagent/bytecode` to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, then include; `version` is "standard" or "editable".

        Raises:
            subprocess.CalledProcessError: the compiler refused, or there is none; it says so on stderr.
        """
        if version == "editable":
            return
        root = Path(self.root)
        environment = os.environ | {"PYTHONPATH": str(root / "agent")}
        subprocess.run([sys.executable, "-m", "vxagent.datapath.source", "build"], check=True, env=environment)
        build_data["force_include"][str(root / "bpf")] = "vxagent/bpf"
        build_data["force_include"][str(root / BYTECODE)] = "vxagent/bytecode"

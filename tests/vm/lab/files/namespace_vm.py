"""Stands in for a VM on a tap of a guest: `namespace_vm.py TAP MAC ADDRESS on|off TOLD`, in which "on" means offloads.

Writes the name of the VM's network namespace to the file TOLD when it is up; ends when it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World

ROOT = "root"  # as `ip netns` shall know the guest's own namespace


def main(tap: str, mac: str, address: str, offloads: str, told: str) -> None:
    """Make the VM, and wait."""
    if not Path("/run/netns", ROOT).exists():
        subprocess.run(["ip", "netns", "attach", ROOT, "1"], check=True)
    with World() as world:
        vm = world.tap_vm(Namespace(ROOT), tap, mac=mac, address=address, offloads=offloads == "on")
        Path(f"{told}.new").write_text(vm.namespace.name)
        os.replace(f"{told}.new", told)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])

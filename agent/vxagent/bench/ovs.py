"""Open vSwitch with a database and a daemon of its own, in one namespace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from vxagent.lab.namespaces import Namespace, run
from vxagent.lab.waiting import wait_until


class OpenVSwitch:
    """Runs until its namespace goes. Its data path is the kernel's where that has one, otherwise its own.

    Raises:
        CommandFailed: it does not start.
    """

    SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

    @classmethod
    def version(cls) -> str:
        """Where it is installed; otherwise nothing."""
        if not shutil.which("ovs-vswitchd") or not Path(cls.SCHEMA).exists():
            return ""
        said = run("ovs-vswitchd", "--version", check=False).stdout.splitlines()
        return said[0].split()[-1] if said else ""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self._namespace = namespace
        self._socket = directory / "db.sock"
        self._kind = "system" if Path("/sys/module/openvswitch").exists() else "netdev"
        places = {f"OVS_{kind}DIR": str(directory) for kind in ("RUN", "LOG", "DB", "SYSCONF")}
        options = {"env": os.environ | places, "stdout": -3, "stderr": -3}  # subprocess.DEVNULL
        database = str(directory / "conf.db")
        namespace.run("ovsdb-tool", "create", database, self.SCHEMA)
        namespace.start("ovsdb-server", database, f"--remote=punix:{self._socket}", **options)
        wait_until(self._socket.exists, what="ovsdb-server listens")
        # Takes hold at the start only; without it the own data path breaks TCP whose checksum is left to the NIC.
        self._vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        namespace.start("ovs-vswitchd", f"unix:{self._socket}", **options)

    def add_bridge(self, name: str, ports: Iterable[str]) -> None:
        """A bridge that learns, with these ports."""
        words = ["add-br", name, "--", "set", "bridge", name, f"datapath_type={self._kind}"]
        for port in ports:
            words += ["--", "add-port", name, port]
        self._vsctl(*words)
        self._namespace.ip("link", "set", name, "up")

    def _vsctl(self, *words: str) -> None:
        self._namespace.run("ovs-vsctl", "--timeout=20", f"--db=unix:{self._socket}", *words)

"""vxagent in a guest: its command line, and VMs that are namespaces there."""

from __future__ import annotations

import itertools
import json
import shlex
from concurrent.futures import Future
from typing import Any

from vm.lab.cache import FILES
from vm.lab.channel import Result
from vm.lab.guest import Guest
from vm.lab.wheel import INSTALL

PYTHON = "/opt/vxagent/bin/python"
INSTALL_TIMEOUT_S = 300
UP_TIMEOUT_S = 600  # its programs are verified; seconds where nobody else wants the CPUs

_numbers = itertools.count(1)


def install(guest: Guest) -> None:
    """Install vxagent from its wheel, without a network and without a compiler.

    Raises:
        GuestError: pip refused.
    """
    guest.sh(INSTALL, within=INSTALL_TIMEOUT_S)


def up(guest: Guest) -> None:
    """Start the agent; it forwards when this returns.

    Raises:
        GuestError: it did not start; says what its log says.
    """
    guest.sh("vxagent up --detach || { tail -n 80 /run/vxagent/agent.log; exit 1; }", within=UP_TIMEOUT_S)


def ask(guest: Guest, *words: str) -> Any:
    """What a reading command of vxagent prints with --json. Raises GuestError when it fails."""
    return json.loads(guest.run("vxagent", *words, "--json").output)


class Inside:
    """A network namespace of a guest, in which the lab's traffic can be made as in a guest."""

    def __init__(self, guest: Guest, netns: str) -> None:
        self.name = f"{netns} in {guest.name}"
        self._guest = guest
        self._netns = netns

    def sh(self, script: str, *, check: bool = True) -> Result:
        """See Guest.sh."""
        return self._guest.sh(self._wrapped(script), check=check)

    def begin(self, script: str) -> Future[Result]:
        """See Guest.begin."""
        return self._guest.begin(self._wrapped(script))

    def script(self, file: str) -> str:
        """Put one of the lab's Python files there; return how a command that runs it begins."""
        return f"{PYTHON} {put(self._guest, file)}"

    def _wrapped(self, script: str) -> str:
        return f"ip netns exec {self._netns} sh -c {shlex.quote(script)}"


def namespace_vm(guest: Guest, tap: str, *, mac: str, address: str, offloads: bool = True) -> Inside:
    """A VM on a tap of the guest, which must have vxagent; it ends with the guest.

    Args:
        guest: the hypervisor.
        tap: the device's name there; it is attached to nothing yet.
        mac, address: of its NIC; IPv4, in a /24.
        offloads: as `World.tap_vm` has them.
    """
    told = f"/run/vm-{next(_numbers)}"
    script = put(guest, "namespace_vm.py")
    guest.begin(f"{PYTHON} {script} {tap} {mac} {address} {'on' if offloads else 'off'} {told} >{told}.log 2>&1")
    waiting = f"for i in $(seq 1000); do [ -e {told} ] && exec cat {told}; sleep 0.1; done; cat {told}.log; exit 1"
    return Inside(guest, guest.sh(waiting, within=UP_TIMEOUT_S).output.strip())


def veth_vm(guest: Guest, port: str, *, mac: str, address: str, mtu: int) -> Inside:
    """A VM on a veth of the guest, as containers have it; it ends with the guest. Nothing needs to be installed there.

    Args:
        guest: the hypervisor.
        port: the device's name there; it is attached to nothing yet.
        mac, address, mtu: of the VM's NIC; IPv4, in a /24.
    """
    guest.sh(
        f"set -e\nip netns add {port}\n"
        f"ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} address {mac} netns {port}\n"
        f"ip link set {port} up\n"
        f"ip -n {port} link set eth0 up\nip -n {port} address add {address}/24 dev eth0"
    )
    return Inside(guest, port)


def put(guest: Guest, file: str) -> str:
    """Put one of the lab's files into the guest; return its path there."""
    path = f"/run/{file}"
    guest.write(path, FILES.joinpath(file).read_text())
    return path

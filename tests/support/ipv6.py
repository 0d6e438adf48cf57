"""VMs that speak IPv6: VM n of a Lan, which has 10.0.0.NN, has 2001:db8::NN."""

from __future__ import annotations

from pathlib import Path

from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until

# <linux/if_addr.h>
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40

PROBE_MS = 100
PATIENT_MS = 1000  # where an objection is expected, on a busy machine


def address_6(vm: Endpoint) -> str:
    """The VM's address."""
    return f"2001:db8::{vm.address.rsplit('.', 1)[1]}"


def speak_ipv6(vm: Endpoint, address: str = "", *, probe_ms: int = PROBE_MS) -> None:
    """Turn IPv6 on, and wait until DAD has found the link-local address and this one to be free, or another's.

    Args:
        address: the VM's own where it is empty.
        probe_ms: see `start_ipv6`.
    """
    start_ipv6(vm, probe_ms=probe_ms)
    vm.namespace.ip("address", "add", f"{address or address_6(vm)}/64", "dev", NIC)
    wait_for_dad(vm)


def start_ipv6(vm: Endpoint, *, probe_ms: int = PROBE_MS) -> None:
    """Turn it on: DAD of the link-local address begins.

    Args:
        probe_ms: how long DAD waits for an objection (RetransTimer, RFC 4862 5.4); the kernel's default is 1,000.
    """
    vm.namespace.sysctl(f"net/ipv6/conf/{NIC}/router_solicitation_delay", 0)  # DAD begins up to that much later
    vm.namespace.sysctl(f"net/ipv6/neigh/{NIC}/retrans_time_ms", probe_ms)
    vm.namespace.sysctl(f"net/ipv6/conf/{NIC}/disable_ipv6", 0)


def wait_for_dad(vm: Endpoint) -> None:
    """Until no address of `eth0` is tentative any more, and the link-local one is there.

    Raises:
        TimeoutError: they remain so.
    """

    def settled() -> bool:
        flags = _addresses(vm)
        undecided = any(flag & IFA_F_TENTATIVE and not flag & IFA_F_DADFAILED for flag in flags.values())
        return not undecided and any(address.startswith("fe80") for address in flags)

    wait_until(settled, what="DAD ends")


def _addresses(vm: Endpoint) -> dict[str, int]:
    """Address, as 32 hex digits, → flags, of `eth0`."""
    with vm.namespace.entered():
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    rows = [line.split() for line in lines]  # address, ifindex, length, scope, flags, name
    return {row[0]: int(row[4], 16) for row in rows if row[5] == NIC}


def echoes(vm: Endpoint, address: str, *options: str) -> bool:
    """Whether an echo request of either family is answered."""
    command = ("ping", "-n", "-c", "1", "-W", "2", *options, address)
    return vm.namespace.run(*command, check=False).returncode == 0

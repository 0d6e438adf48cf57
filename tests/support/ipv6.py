"""VMs that speak IPv6: VM n of a Lan, which has 10.0.0.NN, has 2001:db8::NN."""

from __future__ import annotations

from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until


def address_6(vm: Endpoint) -> str:
    """The VM's address."""
    return f"2001:db8::{vm.address.rsplit('.', 1)[1]}"


def speak_ipv6(vm: Endpoint, address: str = "") -> None:
    """Turn IPv6 on, and wait until DAD has found the link-local address and this one to be free."""
    vm.namespace.sysctl(f"net/ipv6/conf/{NIC}/disable_ipv6", 0)
    vm.namespace.ip("address", "add", f"{address or address_6(vm)}/64", "dev", NIC)

    def settled() -> bool:
        shown = vm.namespace.ip("-6", "address", "show", "dev", NIC)
        return "fe80:" in shown and " tentative" not in shown.replace("dadfailed tentative", "dadfailed")

    wait_until(settled, what="DAD ends")


def echoes(vm: Endpoint, address: str, *options: str) -> bool:
    """Whether an echo request of either family is answered."""
    command = ("ping", "-n", "-c", "1", "-W", "2", *options, address)
    return vm.namespace.run(*command, check=False).returncode == 0

"""A real DHCP server (dnsmasq) and a real client (ISC dhclient) in namespaces; the machine's files stay as they are.

Leases of dnsmasq last two minutes at least.
"""

from __future__ import annotations

from pathlib import Path

from vxagent.lab.vm import NIC, Endpoint

POOL = ("10.0.0.200", "10.0.0.209")
POOL_6 = ("2001:db8::a00", "2001:db8::aff")
LEASE_S = 120

# All that it does is to give the address to the device: no route, no resolv.conf.
_SCRIPT = """#!/bin/sh
case $reason in
    BOUND|RENEW|REBIND|REBOOT) ip address replace "$new_ip_address/24" dev "$interface" ;;
    BOUND6|RENEW6|REBIND6) ip address replace "$new_ip6_address/64" dev "$interface" nodad ;;
    RELEASE|EXPIRE|FAIL) ip address del "$old_ip_address/24" dev "$interface" ;;
    RELEASE6|EXPIRE6) ip address del "$old_ip6_address/64" dev "$interface" ;;
esac
exit 0
"""


def serve_dhcp(host: Endpoint, directory: Path) -> None:
    """Run a server of both families there until the namespace goes; the host has addresses of both."""
    host.namespace.run(
        *("dnsmasq", "--conf-file=/dev/null", "--user=root", "--group=root", "--port=0", "--no-ping"),
        *(f"--pid-file={directory}/dnsmasq.pid", f"--dhcp-leasefile={directory}/dnsmasq.leases"),
        *(f"--log-facility={directory}/dnsmasq.log", "--log-dhcp", "--dhcp-authoritative", f"--interface={NIC}"),
        f"--dhcp-range={POOL[0]},{POOL[1]},255.255.255.0,{LEASE_S}",
        f"--dhcp-range={POOL_6[0]},{POOL_6[1]},64,{LEASE_S}",
    )


class DhcpClient:
    """Asks for an address of one family.

    Args:
        host: which asks, on its `eth0`; for DHCPv6 it has a link-local address.
        directory: an empty one, for files.
        family: 4 or 6.
    """

    def __init__(self, host: Endpoint, directory: Path, family: int) -> None:
        self._host = host
        self._family = family
        script = directory / "script"
        script.write_text(_SCRIPT)
        script.chmod(0o755)
        (directory / "conf").write_text("timeout 20;\nretry 5;\ninitial-interval 1;\n")
        self._command = (
            *("dhclient", f"-{family}", "-1", "-sf", str(script), "-cf", str(directory / "conf")),
            *("-lf", str(directory / "leases"), "-pf", str(directory / "pid")),
        )

    def ask(self) -> str:
        """Get an address, and go on renewing it; return it."""
        self._host.namespace.run(*self._command, NIC)
        return self.address()

    def release(self) -> None:
        """Give it back, and end."""
        self._host.namespace.run(*self._command, "-r", NIC)

    def address(self) -> str:
        """The address that it has; "" for none."""
        shown = self._host.namespace.ip(f"-{self._family}", "-o", "address", "show", "dev", NIC, "scope", "global")
        return shown.split()[3].split("/")[0] if shown else ""

"""A Linux bridge to compare with, as fast as it goes."""

from __future__ import annotations

from pathlib import Path

from vxagent.lab.namespaces import Namespace

MAC = "02:00:00:b0:00:01"  # its own: else it takes another one as devices come, and who knows it loses it for seconds


class Bridge:
    """A bridge in a namespace of its own, without snooping, spanning tree and netfilter.

    Leaving netfilter's hooks on (the kernel's default where br_netfilter is loaded) would cost it up to 30 %.
    """

    def __init__(self, namespace: Namespace, name: str = "br0") -> None:
        self.namespace = namespace
        self.name = name
        with namespace.entered():
            hooks = [path.name for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*")]
        for hook in hooks:
            namespace.sysctl(f"net/bridge/{hook}", 0)
        namespace.ip(*f"link add {name} address {MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0".split())
        namespace.ip("link", "set", name, "up")

    def add(self, ifname: str) -> None:
        """Enslave a device."""
        self.namespace.ip("link", "set", ifname, "master", self.name)

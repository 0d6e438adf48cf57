"""The physical network behind an uplink: a trunk, and hosts in its VLANs.

A process puts tags on and takes them off, so that no VLAN device is needed in the kernel.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from vxagent.lab.namespaces import Namespace
from vxagent.lab.sniffer import Sniffer, open_packet_socket
from vxagent.lab.tap import Pump, open_tap
from vxagent.lab.vm import NIC, Endpoint

TRUNK = "trunk"


class Fabric:
    """The network behind one uplink.

    Args:
        namespace_named: makes a namespace.
        switch: the switch's namespace.
        uplink: the name of the device to be made there.
        mtu: bytes of L3.

    Attributes:
        namespace: holds `trunk`, the other end of the uplink; sniff and send tagged frames there.
        switch: the switch's namespace.
        uplink: the device's name in the switch's namespace.
    """

    def __init__(
        self, namespace_named: Callable[[str], Namespace], switch: Namespace, uplink: str, *, mtu: int = 1500
    ) -> None:
        self.namespace = namespace_named(f"fabric-{uplink}")
        self.switch = switch
        self.uplink = uplink
        self.mtu = mtu
        self._namespace_named = namespace_named
        self._taps: dict[str, int] = {}
        self._pump: Pump | None = None
        switch.ip(*f"link add {uplink} mtu {mtu} type veth peer name {TRUNK} netns {self.namespace.name}".split())
        switch.ip("link", "set", uplink, "up")
        self.namespace.ip("link", "set", TRUNK, "mtu", str(mtu), "up")
        switch.wait_running(uplink)
        self._socket: socket.socket = open_packet_socket(self.namespace, TRUNK)
        self._socket.setblocking(False)

    def host(self, vid: int | None, *, mac: str, address: str = "") -> Endpoint:
        """A host in one VLAN, or of untagged frames where `vid` is None; one for each."""
        branch = "untagged" if vid is None else str(vid)
        endpoint = Endpoint(
            namespace=self._namespace_named(f"{self.namespace.name.rsplit('-', 1)[-1]}-{branch}"),
            mac=mac,
            address=address,
        )
        self._taps[branch] = open_tap(endpoint.namespace, NIC)
        endpoint.configure(mtu=self.mtu)
        if self._pump is not None:
            self._pump.stop()
        self._pump = Pump(("packet", self._socket.fileno()), self._taps)
        return endpoint

    def sniff(self) -> Sniffer:
        """Listen to what the switch sends into the fabric."""
        return Sniffer(self.namespace, TRUNK)

    def close(self) -> None:
        """End the process and remove the hosts' devices."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        while self._taps:
            os.close(self._taps.popitem()[1])
        self._socket.close()

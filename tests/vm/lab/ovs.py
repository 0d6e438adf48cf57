"""Open vSwitch in a guest, with the kernel's data path, as one end of an overlay.

 VMs (veth)
┌──┴──────────────┐
│ a bridge each   │    a port of type vxlan for each VNI and far end; static, as `ovs-vsctl` makes them
│ segment         │
│ eth0: a VTEP    │
└──┬──────────────┘
 underlay
"""

from __future__ import annotations

from vm.lab.guest import Guest
from vm.lab.hypervisor import Inside, veth_vm

START_TIMEOUT_S = 300  # it takes seconds where nobody else wants the CPUs
COMMAND_TIMEOUT_S = 50
FLOWS_STAY_MS = 600_000  # else the daemon decides anew where nothing comes for ten seconds


class OpenVSwitch:
    """Runs as Debian's units start it, but without the limits of time that systemd has.

    Args:
        guest: a hypervisor that is up.
        vtep: its tunnel address, which its underlay device has.
        mtu: of VMs' NICs, in bytes of L3.
    """

    def __init__(self, guest: Guest, vtep: str, *, mtu: int) -> None:
        self._guest = guest
        self._vtep = vtep
        self._mtu = mtu
        self._tunnels: dict[tuple[str, str], str] = {}
        guest.sh(
            "/usr/share/openvswitch/scripts/ovs-ctl --system-id=random --no-record-hostname --no-monitor start",
            within=START_TIMEOUT_S,
        )
        self._vsctl("set", "Open_vSwitch", ".", f"other_config:max-idle={FLOWS_STAY_MS}")

    def segment(self, bridge: str, vni: int, *vteps: str) -> None:
        """A bridge that learns, and its tunnels to these. What comes from one of them goes to no other one."""
        words = ["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=system"]
        for number, vtep in enumerate(vteps):
            port = self._tunnels[bridge, vtep] = f"x{number}-{bridge}"
            words += ["--", "add-port", bridge, port, "--", "set", "port", port, "protected=true"]
            words += ["--", "set", "interface", port, "type=vxlan"]
            words += [f"options:key={vni}", f'options:remote_ip="{vtep}"', f'options:local_ip="{self._vtep}"']
        self._vsctl(*words)

    def vm(self, bridge: str, *, mac: str, address: str) -> Inside:
        """A VM there; each bridge has one at most."""
        port = f"v-{bridge}"
        vm = veth_vm(self._guest, port, mac=mac, address=address, mtu=self._mtu)
        self._vsctl("add-port", bridge, port)
        return vm

    def has_learned(self, bridge: str, mac: str, vtep: str) -> bool:
        """Whether a bridge has learned that a MAC is there."""
        number = self._vsctl("get", "interface", self._tunnels[bridge, vtep], "ofport").strip()
        shown = self._guest.run("ovs-appctl", "fdb/show", bridge).output  # port, VLAN, MAC, age
        return any(line.split()[0] == number and line.split()[2] == mac for line in shown.splitlines())

    def data_paths(self) -> str:
        """What `ovs-dpctl show` says of those of the kernel."""
        return self._guest.run("ovs-dpctl", "show").output

    def _vsctl(self, *words: str) -> str:
        return self._guest.run("ovs-vsctl", f"--timeout={COMMAND_TIMEOUT_S}", *words).output

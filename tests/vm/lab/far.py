"""A guest as one more host on the underlay of a fleet."""

from __future__ import annotations

from support.fleet import PREFIX, Fleet
from vm.lab.guest import Guest
from vm.lab.qemu import Nic
from vm.lab.vms import Vms

NUMBER = 9  # of its tunnel address


def far_guest(fleet: Fleet, *, series: str = "6.12") -> tuple[Guest, str]:
    """A hypervisor that is up, and its tunnel address, which its `eth0` has."""
    guest = Vms(fleet.world).hypervisor(
        fleet.underlay.namespace, Nic(ifname="q9", mac="02:00:00:00:f0:09"), series=series, name="far", systemd=False
    )
    guest.wait_up()
    fleet.underlay.add("q9")
    vtep = fleet.address(NUMBER)
    nodad = "nodad" if fleet.family == 6 else ""
    guest.sh(f"set -e\nip link set eth0 up\nip address add {vtep}/{PREFIX[fleet.family]} dev eth0 {nodad}")
    return guest, vtep

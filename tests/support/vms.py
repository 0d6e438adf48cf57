"""VMs of every kind."""

from __future__ import annotations

from support.lan import Lan
from vxagent.lab.vm import TapVm, VethVm

KINDS = ("veth", "tap", "tap without offloads")


def plugged(lan: Lan, segment: str, kind: str, **options: str) -> VethVm | TapVm:
    """A VM on an access port; the kind is one of KINDS, `options` are those of `Lan.veth` and `Lan.tap`."""
    if kind == "veth":
        return lan.veth(lan.unique("v"), segment, **options)
    return lan.tap(lan.unique("t"), segment, offloads=kind == "tap", **options)

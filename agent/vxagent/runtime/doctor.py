"""Can this host run the switch, and do its ports' devices do what the switch needs of them?

`gather…` collects facts and may block; `judge…` turns them into findings and touches nothing.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vxagent.core.effects import Xdp
from vxagent.core.hooks import choose
from vxagent.core.overlay import troubles
from vxagent.core.patience import Restless
from vxagent.core.state import State
from vxagent.datapath import bpf, bpf_link, bpffs, bytecode, source, toolchain
from vxagent.errors import HostError
from vxagent.model.device import Device
from vxagent.model.port import Hook, PortState
from vxagent.netlink.base import Inspection
from vxagent.runtime.cluster_doctor import ClusterFacts, gather_cluster, judge_cluster
from vxagent.runtime.config import LOOPBACK
from vxagent.runtime.findings import Finding, Level
from vxagent.runtime.follower import device_names

if TYPE_CHECKING:
    from vxagent.runtime.loop import Agent

RESTLESS_LINES = 10
_PROC_SYS = Path("/proc/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What of the machine matters.

    Attributes:
        release: of the kernel.
        too_old: why the kernel cannot, "" when it can.
        tcx: it has tcx links; None: not known for want of rights.
        missing: capabilities that this process lacks.
        bpffs: a file system for pins is mounted, or may be.
        vanishing: where bpffs are that will go with the mount namespace of this process.
        shipped: bytecode of these very C sources came with the package.
        bcc: its version, "" when there is none.
        no_bcc: why there is none.
        jit: BPF programs are compiled, not interpreted.
        bridge_netfilter: frames of Linux bridges go through iptables.
    """

    release: str
    too_old: str = ""
    tcx: bool | None = True
    missing: tuple[str, ...] = ()
    bpffs: bool = True
    vanishing: tuple[str, ...] = ()
    shipped: bool = True
    bcc: str = ""
    no_bcc: str = ""
    jit: bool = True
    bridge_netfilter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchFacts:
    """A switch and its devices; `inspections` and `foreign` (tcx programs of others) by ifindex, `xdp_refused` by port
    handle, `metrics` where they are served over TCP, `restless` what drifts again and again, by kind and name."""

    state: State
    inspections: Mapping[int, Inspection] = field(default_factory=dict)
    xdp_refused: Mapping[int, str] = field(default_factory=dict)
    foreign: Mapping[int, list[int]] = field(default_factory=dict)
    metrics: tuple[str, int] | None = None
    restless: Sequence[Restless] = ()
    cluster: ClusterFacts = ClusterFacts()  # noqa: RUF009  # frozen


def examine(agent: Agent | None = None) -> list[Finding]:
    """Everything that can be said of this host and, with an agent, of its switch. Blocks."""
    findings = list(judge_host(gather_host()))
    if agent is not None:
        findings += judge_switch(gather_switch(agent))
    return findings


# Facts


def gather_host() -> HostFacts:
    """The facts of this machine, as this process sees it."""
    try:
        bpf.check_kernel()
        too_old = ""
    except HostError as error:
        too_old = str(error)
    try:
        tcx = None if too_old else bpf_link.has_tcx()
    except HostError:
        tcx = None
    try:
        bcc, no_bcc = toolchain.bcc_version(), ""
    except HostError as error:
        bcc, no_bcc = "", str(error)
    missing = tuple(bpf.missing_capabilities())
    may_mount = os.geteuid() == 0 and not missing
    mounts = bpffs.own_mounts()
    return HostFacts(
        release=os.uname().release,
        too_old=too_old,
        tcx=tcx,
        missing=missing,
        bpffs=may_mount or any(mount.kind == "bpf" for mount in bpffs.read_mounts(mounts)),
        vanishing=tuple(bpffs.vanishing(mounts)) if bpffs.in_private_namespace() else (),
        shipped=_is_shipped(),
        bcc=bcc,
        no_bcc=no_bcc,
        jit=_sysctl("net/core/bpf_jit_enable") != "0",
        bridge_netfilter=_sysctl("net/bridge/bridge-nf-call-iptables") == "1",
    )


def gather_switch(agent: Agent) -> SwitchFacts:
    """The facts of an agent's switch, its devices read anew."""
    state = agent.switch.state.copy()
    state.devices = {device.ifname: device for device in agent.links.devices()}
    devices = [state.devices[name] for name in device_names(state) if name in state.devices]
    inspections = {device.ifindex: agent.links.inspect(device.ifindex) for device in devices}
    return SwitchFacts(
        state=state,
        inspections=inspections,
        xdp_refused=agent.datapath.xdp_refused(),
        foreign=agent.datapath.foreign(inspections),
        metrics=agent.config.metrics_listen,
        restless=agent.auditor.restless(),
        cluster=gather_cluster(agent.membership, state),
    )


def _is_shipped() -> bool:
    try:
        return bytecode.read(source.SHIPPED, source.switch().digest()) is not None
    except HostError:
        return False


def _sysctl(name: str) -> str:
    try:
        return (_PROC_SYS / name).read_text().strip()
    except OSError:
        return ""


# Findings


def judge_host(facts: HostFacts) -> Iterator[Finding]:
    """Findings about the machine."""
    if facts.too_old:
        yield Finding(level=Level.BAD, what=facts.too_old)
    elif facts.tcx is False:
        what = f"kernel {facts.release} has no tcx; clsact stands in, which is some percent slower"
        yield Finding(level=Level.WARN, what=what, mend="kernel 6.6 or newer has it")
    else:
        yield Finding(level=Level.OK, what=f"kernel {facts.release}")
    if facts.missing:
        what = f"this process lacks {', '.join(facts.missing)}"
        yield Finding(level=Level.BAD, what=what, mend="run vxagent as root, or give it these capabilities")
    else:
        yield Finding(level=Level.OK, what="all capabilities that are needed")
    if not facts.bpffs:
        what = f"no bpffs at {bpffs.HOST_BPFFS}, and no right to mount one"
        yield Finding(level=Level.BAD, what=what, mend=f"have root do `mount -t bpf bpf {bpffs.HOST_BPFFS}`")
    for path in facts.vanishing:
        what = f"the bpffs at {path} is mounted in a mount namespace of the agent's own: forwarding ends with it"
        yield Finding(level=Level.WARN, what=what, mend="have the host mount the bpffs before the agent starts")
    yield _judge_bytecode(facts)
    if not facts.jit:
        what = "the kernel interprets BPF programs, which is many times slower"
        yield Finding(level=Level.WARN, what=what, mend="`sysctl -w net.core.bpf_jit_enable=1`")
    if facts.bridge_netfilter:
        what = "iptables sees the frames of Linux bridges (br_netfilter), but none that vxagent forwards"
        yield Finding(level=Level.OK, what=what)


def _judge_bytecode(facts: HostFacts) -> Finding:
    if facts.shipped:
        return Finding(level=Level.OK, what="bytecode came with the package")
    if facts.bcc:
        return Finding(level=Level.OK, what=f"bytecode is compiled here, by BCC {facts.bcc}")
    what, _, mend = facts.no_bcc.partition("; ")
    return Finding(level=Level.BAD, what=f"no bytecode came with the package, and {what}", mend=mend)


def judge_switch(facts: SwitchFacts) -> Iterator[Finding]:
    """Findings about ports, uplinks and their devices."""
    findings = [
        *_judge_ports(facts),
        *_judge_uplinks(facts),
        *_judge_overlay(facts),
        *_judge_metrics(facts),
        *_judge_restless(facts),
        *judge_cluster(facts.cluster),
    ]
    yield from findings
    if not findings:
        state = facts.state
        yield Finding(level=Level.OK, what=f"{len(state.ports)} ports and {len(state.uplinks)} uplinks")


def _judge_ports(facts: SwitchFacts) -> Iterator[Finding]:
    state = facts.state
    for port in state.ports.values():
        who = f"port {port.id}"
        yield from _judge_state(who, *state.port_state(port.id))
        device = state.devices.get(state.device_name(port))
        if device is None:
            continue
        mtu = max((state.segments[name].mtu for name, _ in port.memberships), default=0)
        yield from _judge_device(device, mtu, facts.inspections.get(device.ifindex, Inspection()))
        yield from _judge_tcx(facts, device)
        yield from _judge_xdp(facts, port.id, device)
        if state.handle_of_port(port.id) in state.attached:
            yield from _judge_quiet(device)


def _judge_uplinks(facts: SwitchFacts) -> Iterator[Finding]:
    state = facts.state
    vids = {segment.vlan: segment for segment in state.segments.values() if segment.vlan is not None}
    mtu = max((segment.mtu for segment in vids.values()), default=0)
    for ifname in state.uplinks:
        yield from _judge_state(f"uplink {ifname}", *state.uplink_state(ifname))
        device = state.devices.get(ifname)
        if device is None:
            continue
        inspection = facts.inspections.get(device.ifindex, Inspection())
        yield from _judge_device(device, mtu, inspection)
        yield from _judge_tcx(facts, device)
        yield from _judge_xdp(facts, ifname, device)
        if inspection.lro:
            what = f"uplink {ifname} merges frames that it receives (LRO), which cannot be forwarded"
            yield Finding(level=Level.BAD, what=what, mend=f"`ethtool -K {ifname} lro off`")
        for other in state.devices.values():
            if other.lower == device.ifindex and other.vid in vids:
                what = f"VLAN {other.vid} of uplink {ifname} is wanted by device {other.ifname} and segment "
                what += f"{vids[other.vid].name}: the host gets none of its frames"
                yield Finding(
                    level=Level.BAD, what=what, mend=f"give one of them another VLAN, or remove {other.ifname}"
                )


def _judge_overlay(facts: SwitchFacts) -> Iterator[Finding]:
    state = facts.state
    if state.overlay is None:
        return
    if state.underlay not in state.uplinks:
        yield from _judge_state(f"underlay {state.overlay.device}", *state.overlay_state())
        device = state.devices.get(state.overlay.device)
        if device is not None:
            yield from _judge_device(device, 0, facts.inspections.get(device.ifindex, Inspection()))
            yield from _judge_tcx(facts, device)
    for trouble in troubles(state):
        level = Level.BAD if trouble.lost else Level.WARN
        yield Finding(level=level, what=trouble.what, mend=trouble.mend)


def _judge_metrics(facts: SwitchFacts) -> Iterator[Finding]:
    if facts.metrics is not None and not _is_loopback(facts.metrics[0]):
        what = f"metrics are served to everybody who reaches {facts.metrics[0]} port {facts.metrics[1]}"
        mend = f"let only your Prometheus through to it, or set metrics_listen to {LOOPBACK}:{facts.metrics[1]}"
        yield Finding(level=Level.WARN, what=what, mend=mend)


def _judge_restless(facts: SwitchFacts) -> Iterator[Finding]:
    """What somebody else seems to want otherwise. Frames may go astray where it does not wait: see `Drift.urgent`."""
    mend = "find out who changes it; the agent's log says what was wrong the first times"
    worst = sorted(facts.restless, key=lambda one: (one.wait_s is not None, -one.attempts))
    for one in worst[:RESTLESS_LINES]:
        level = Level.BAD if one.wait_s is None else Level.WARN
        how = "tried at every look" if one.wait_s is None else f"the next attempt is in {one.wait_s:.0f} s"
        what = f"{one.thing} drifts again and again: {one.attempts} repairs, {how}"
        yield Finding(level=level, what=f"{what}; last seen {one.seen_s:.0f} s ago", mend=mend)
    if len(worst) > RESTLESS_LINES:
        what = f"{len(worst) - RESTLESS_LINES} more things drift again and again"
        yield Finding(level=Level.WARN, what=what, mend=mend)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name
        return address == "localhost"


def _judge_state(who: str, state: PortState, why: str) -> Iterator[Finding]:
    if state in (PortState.PENDING, PortState.DOWN):
        what, _, mend = why.partition("; ")
        yield Finding(level=Level.WARN, what=f"{who} is {state}: {what}", mend=mend)


def _judge_device(device: Device, mtu: int, inspection: Inspection) -> Iterator[Finding]:
    name = device.ifname
    if device.mtu < mtu:
        what = f"device {name} takes {device.mtu} bytes, its segment {mtu}: what is larger is lost there"
        yield Finding(level=Level.WARN, what=what, mend=f"`ip link set dev {name} mtu {mtu}`")
    for found in dict.fromkeys(inspection.filters):
        what = f"device {name} has a tc filter of somebody else ({found})"
        yield Finding(level=Level.WARN, what=what, mend=f"see `tc filter show dev {name} ingress`, and egress")


def _judge_tcx(facts: SwitchFacts, device: Device) -> Iterator[Finding]:
    """Somebody else's program, such as that of another switch, which would set the device down when it lets go."""
    others = facts.foreign.get(device.ifindex)
    if others:
        ids = ", ".join(map(str, others))
        what = f"device {device.ifname} runs a tcx program of somebody else (id {ids}), perhaps of another vxagent"
        mend = f"see `bpftool net show dev {device.ifname}`; detach the device from one of the two"
        yield Finding(level=Level.WARN, what=what, mend=mend)


def _judge_xdp(facts: SwitchFacts, name: str, device: Device) -> Iterator[Finding]:
    """Somebody else's program, and hardware that could be faster."""
    state = facts.state
    handle = state.numbers.number("port", name)
    refused, ours = facts.xdp_refused.get(handle, ""), Xdp.SENDS in state.xdp.get(handle, Xdp.NONE)
    foreign = facts.inspections.get(device.ifindex, Inspection()).xdp_program
    if foreign and (refused or not ours):
        what = f"device {device.ifname} runs an XDP program of somebody else (id {foreign}) before the switch"
        mend = f"`ip link set dev {device.ifname} xdp off` (or xdpgeneric off)"
        yield Finding(level=Level.WARN, what=what, mend=mend)
        return
    hook = state.uplinks[name].hook if name in state.uplinks else state.ports[name].hook
    could = (not device.kind or hook is Hook.XDP) and not device.lro  # which has a finding of its own
    why = refused or (choose(state, name, device).why if could and handle in state.attached else "")
    if why and hook is not Hook.TC:
        what, _, mend = why.partition("; ")
        yield Finding(level=Level.WARN, what=f"device {device.ifname} is without XDP: {what}", mend=mend)


def _judge_quiet(device: Device) -> Iterator[Finding]:
    """A VM and the host's own stack must not meet on a port."""
    name = device.ifname
    if device.addresses:
        what = f"the host has the address {device.addresses[0]} on port device {name}"
        yield Finding(
            level=Level.BAD, what=what, mend=f"`ip address flush dev {name}`; for the host use an internal port"
        )
    if device.arp:
        what = f"the host answers ARP on port device {name}"
        yield Finding(level=Level.BAD, what=what, mend=f"`ip link set dev {name} arp off`")
    if device.ipv6:
        what = f"the host speaks IPv6 on port device {name}"
        mend = f"`echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6`"
        yield Finding(level=Level.BAD, what=what, mend=mend)
    if device.master:
        what = f"port device {name} is enslaved to {device.master} as well, which sends its own frames to the VM"
        yield Finding(level=Level.BAD, what=what, mend=f"`ip link set dev {name} nomaster`")

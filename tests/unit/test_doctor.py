"""Findings about a host and its switch, from facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vxagent.core.effects import Xdp
from vxagent.core.patience import Restless
from vxagent.core.state import State
from vxagent.core.switch import Switch
from vxagent.model.cluster import Problem
from vxagent.model.device import Device
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.segment import Segment
from vxagent.netlink.base import Inspection
from vxagent.runtime.cluster_doctor import LINES, ClusterFacts
from vxagent.runtime.doctor import (
    RESTLESS_LINES,
    HostFacts,
    SwitchFacts,
    judge_host,
    judge_switch,
)
from vxagent.runtime.findings import Finding, Level

FIT = HostFacts(release="6.18.0")
BLUE = Segment(name="blue", tenant="acme", vlan=10)
TAP = Device(ifname="tap0", ifindex=7, kind="tun", arp=False, ipv6=False)
ETH = Device(ifname="eth1", ifindex=3)


def bad(findings: list[Finding]) -> list[tuple[Level, str, str]]:
    """Those that are not ok."""
    return [(f.level, f.what, f.mend) for f in findings if f.level is not Level.OK]


def switch(*devices: Device, seen: tuple[Device, ...] = (), at: Hook = Hook.AUTO, **fields: object) -> State:
    """A switch with a port tap0 and an uplink eth1 (at that hook), which took TAP and ETH, or what was `seen` in their
    place, and shows `devices` now."""
    switch = Switch({}, host="hv1")
    draft = switch.draft()
    draft.links_read([TAP, ETH, *seen])
    draft.add_segment(BLUE)
    draft.attach_port(Port(id="p0", ifname="tap0", segment="blue", **fields))  # type: ignore[arg-type]  # shorthand
    draft.add_uplink(Uplink(ifname="eth1", hook=at))
    switch.commit(draft.plan())
    state = switch.state.copy()
    state.devices = {device.ifname: device for device in devices}
    return state


def judge_with(cluster: ClusterFacts) -> list[tuple[Level, str, str]]:
    """The same, of a switch that is fine."""
    return bad(list(judge_switch(SwitchFacts(state=switch(TAP, ETH), cluster=cluster))))


def judge(state: State, refused: str = "", **inspections: Inspection) -> list[tuple[Level, str, str]]:
    """What is not ok; `refused`: why eth1 did not take the program at XDP; inspections by device name."""
    by_ifindex = {state.devices[name].ifindex: inspection for name, inspection in inspections.items()}
    xdp_refused = {state.handle_of_uplink("eth1"): refused} if refused else {}
    return bad(list(judge_switch(SwitchFacts(state=state, inspections=by_ifindex, xdp_refused=xdp_refused))))


def test_a_fit_host_has_nothing_to_mend() -> None:
    assert bad(list(judge_host(FIT))) == []


@pytest.mark.parametrize(
    ("facts", "level", "what", "mend"),
    [
        (replace(FIT, too_old="kernel 5.10 is too old"), Level.BAD, "kernel 5.10 is too old", ""),
        (replace(FIT, tcx=False), Level.WARN, "has no tcx", "6.6"),
        (replace(FIT, missing=("CAP_BPF",)), Level.BAD, "lacks CAP_BPF", "as root"),
        (replace(FIT, bpffs=False), Level.BAD, "no bpffs", "mount -t bpf bpf /sys/fs/bpf"),
        (replace(FIT, vanishing=("/run/b",)), Level.WARN, "at /run/b is mounted in a mount", "before the agent starts"),
        (
            replace(FIT, shipped=False, no_bcc="BCC is not installed; install BCC: apt-get install python3-bpfcc"),
            Level.BAD,
            "no bytecode came with the package, and BCC is not installed",
            "apt-get install python3-bpfcc",
        ),
        (replace(FIT, jit=False), Level.WARN, "interprets", "sysctl -w net.core.bpf_jit_enable=1"),
    ],
)
def test_what_a_host_lacks_is_said_with_what_mends_it(facts: HostFacts, level: Level, what: str, mend: str) -> None:
    [found] = bad(list(judge_host(facts)))
    assert found[0] is level
    assert what in found[1]
    assert mend in found[2]


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "::", "hv1"])
def test_metrics_that_others_can_read_are_told_of(address: str) -> None:
    (found,) = bad(list(judge_switch(SwitchFacts(state=State(), metrics=(address, 9478)))))
    assert found[:2] == (Level.WARN, f"metrics are served to everybody who reaches {address} port 9478")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_metrics_for_this_machine_alone_are_no_finding(address: str) -> None:
    assert bad(list(judge_switch(SwitchFacts(state=State(), metrics=(address, 9478))))) == []


def test_what_is_only_worth_knowing_is_no_fault() -> None:
    facts = replace(FIT, shipped=False, bcc="0.26.0", bridge_netfilter=True)
    assert bad(list(judge_host(facts))) == []
    said = " ".join(finding.what for finding in judge_host(facts))
    assert "BCC 0.26.0" in said
    assert "br_netfilter" in said


def test_a_healthy_switch_is_one_line() -> None:
    findings = list(judge_switch(SwitchFacts(state=switch(TAP, ETH))))
    assert findings == [Finding(level=Level.OK, what="1 ports and 1 uplinks")]


def test_a_port_without_its_device_is_pending() -> None:
    assert judge(_pending()) == [(Level.WARN, "port p0 is pending: device tap0 is not there", "")]


def _pending() -> State:
    switch = Switch({}, host="hv1")
    draft = switch.draft()
    draft.add_segment(BLUE)
    draft.attach_port(Port(id="p0", ifname="tap0", segment="blue"))
    switch.commit(draft.plan())
    return switch.state


def test_a_device_that_is_down_is_said_with_the_command() -> None:
    [(level, what, mend)] = judge(switch(replace(TAP, up=False), ETH))
    assert (level, what) == (Level.WARN, "port p0 is down: device tap0 is down")
    assert "ip link set dev tap0 up" in mend


@pytest.mark.parametrize(
    ("device", "what", "mend"),
    [
        (replace(TAP, mtu=1400), "takes 1400 bytes, its segment 1500", "ip link set dev tap0 mtu 1500"),
        (replace(TAP, addresses=("192.0.2.1",)), "has the address 192.0.2.1", "ip address flush dev tap0"),
        (replace(TAP, arp=True), "answers ARP on port device tap0", "ip link set dev tap0 arp off"),
        (replace(TAP, ipv6=True), "speaks IPv6 on port device tap0", "/proc/sys/net/ipv6/conf/tap0/disable_ipv6"),
        (replace(TAP, master="br0"), "is enslaved to br0 as well", "ip link set dev tap0 nomaster"),
    ],
)
def test_a_port_device_that_is_not_as_it_must_be(device: Device, what: str, mend: str) -> None:
    [(_, said, mends)] = judge(switch(device, ETH))
    assert what in said
    assert mend in mends


def test_what_drifts_again_and_again_is_said_what_may_leak_first() -> None:
    often = [Restless(thing=f"pin links/{n}", attempts=3, seen_s=2.0, wait_s=8.0) for n in range(RESTLESS_LINES)]
    often.append(Restless(thing="ports ports[0x1] of port p0", attempts=7, seen_s=1.2, wait_s=None))
    found = bad(list(judge_switch(SwitchFacts(state=switch(TAP, ETH), restless=often))))
    assert [level for level, _, _ in found] == [Level.BAD, *[Level.WARN] * RESTLESS_LINES]
    assert [what for _, what, _ in (found[0], found[1], found[-1])] == [
        "ports ports[0x1] of port p0 drifts again and again: 7 repairs, tried at every look; last seen 1 s ago",
        "pin links/0 drifts again and again: 3 repairs, the next attempt is in 8 s; last seen 2 s ago",
        "1 more things drift again and again",
    ]


def test_keys_of_the_cluster_that_cannot_be_read_are_named() -> None:
    keys = [Problem(key=f"/vxagent/v1/prod/host/hv{n}", why="no JSON") for n in range(LINES + 2)]
    found = judge_with(ClusterFacts(unreadable=keys))
    assert [level for level, _, _ in found] == [Level.WARN] * (LINES + 1)
    assert [what for _, what, _ in (found[0], found[-1])] == [
        "/vxagent/v1/prod/host/hv0 in the cluster cannot be read: no JSON",
        "2 more keys of the cluster cannot be read",
    ]


def test_hosts_of_the_cluster_that_are_silent_are_named() -> None:
    found = judge_with(ClusterFacts(silent=[f"hv{n}" for n in range(LINES + 1)]))
    assert [level for level, _, _ in found] == [Level.WARN] * (LINES + 1)
    assert [what for _, what, _ in (found[0], found[-1])] == [
        "host hv0 of the cluster is silent: nothing is flooded to it until it is back; its ports stay its own",
        "1 more hosts of the cluster are silent",
    ]
    assert "`vxagent host evacuate hv0`, and if it is gone for good, `vxagent host forget hv0`" in found[0][2]


def test_a_cluster_that_does_not_answer_is_said_to_be_so() -> None:
    [(level, what, mend)] = judge_with(ClusterFacts(away="the cluster does not answer (no member does)"))
    assert (level, what) == (
        Level.WARN,
        "the cluster does not answer (no member does): what is attached goes on; "
        "what needs the other hosts' consent is refused",
    )
    assert "endpoints in vxagent.toml" in mend


def test_programs_of_others_are_named() -> None:
    state = switch(TAP, ETH, at=Hook.TC)
    found = judge(state, eth1=Inspection(xdp_program=42, filters=("bpf cil", "flower", "bpf cil")))
    assert [what for _, what, _ in found] == [
        "device eth1 has a tc filter of somebody else (bpf cil)",
        "device eth1 has a tc filter of somebody else (flower)",
        "device eth1 runs an XDP program of somebody else (id 42) before the switch",
    ]


def test_an_xdp_program_of_somebody_else_is_named_with_what_takes_it_off() -> None:
    mend = "`ip link set dev eth1 xdp off` (or xdpgeneric off)"
    what = "device eth1 runs an XDP program of somebody else (id 42) before the switch"
    there = Inspection(xdp_program=42)
    refused = judge(switch(TAP, ETH), "somebody else's XDP program runs there; take it off", eth1=there)
    assert refused == judge(switch(TAP, ETH, at=Hook.TC), eth1=there) == [(Level.WARN, what, mend)]


def test_an_xdp_program_on_a_port_that_has_none_of_the_switch_is_somebody_elses() -> None:
    state = switch(TAP, ETH)
    state.xdp[state.handle_of_port("p0")] = Xdp.RECEIVES
    [(_, what, _)] = judge(state, tap0=Inspection(xdp_program=42))
    assert what == "device tap0 runs an XDP program of somebody else (id 42) before the switch"


def test_a_tcx_program_of_somebody_else_is_named_on_ports_and_uplinks() -> None:
    facts = SwitchFacts(state=switch(TAP, ETH), foreign={TAP.ifindex: [42], ETH.ifindex: [43, 44]})
    what = "runs a tcx program of somebody else (id {}), perhaps of another vxagent"
    mend = "see `bpftool net show dev {}`; detach the device from one of the two"
    assert bad(list(judge_switch(facts))) == [
        (Level.WARN, f"device tap0 {what.format('42')}", mend.format("tap0")),
        (Level.WARN, f"device eth1 {what.format('43, 44')}", mend.format("eth1")),
    ]


def test_the_switchs_own_xdp_program_is_no_fault() -> None:
    ours = Inspection(xdp_program=42)
    assert judge(switch(TAP, ETH), tap0=ours, eth1=ours) == []


def test_hardware_that_did_not_take_the_xdp_program_is_named_with_the_reason() -> None:
    found = judge(switch(TAP, ETH), "its MTU is too large for native XDP")
    assert found == [(Level.WARN, "device eth1 is without XDP: its MTU is too large for native XDP", "")]


def test_an_uplink_that_merges_frames_is_told_of_once() -> None:
    lro = replace(ETH, lro=True)
    [(level, what, mend)] = judge(switch(TAP, lro, seen=(lro,)), eth1=Inspection(lro=True))
    assert (level, mend) == (Level.BAD, "`ethtool -K eth1 lro off`")
    assert what.startswith("uplink eth1 merges frames that it receives")


def test_hardware_whose_driver_always_takes_vlan_tags_out_is_without_xdp() -> None:
    fixed = replace(ETH, rxvlan=True, rxvlan_fixed=True)
    [(level, what, mend)] = judge(switch(TAP, fixed, seen=(fixed,)))
    assert (level, mend) == (Level.WARN, "")
    assert what.startswith("device eth1 is without XDP: its driver takes VLAN tags out of frames")


@pytest.mark.parametrize("device", [replace(TAP, vhost=True), replace(TAP, queues=4), replace(TAP, kind="veth")])
def test_a_port_device_where_xdp_would_not_pay_off_is_no_fault(device: Device) -> None:
    assert judge(switch(device, ETH, seen=(device,))) == []


def test_an_uplink_without_xdp_is_named_where_xdp_was_asked_for() -> None:
    veth = replace(ETH, kind="veth")
    assert judge(switch(TAP, veth, seen=(veth,))) == []
    what = "device eth1 is without XDP: a device of kind veth: tc is the faster hook there"
    assert judge(switch(TAP, veth, seen=(veth,), at=Hook.XDP)) == [(Level.WARN, what, "")]


def test_what_was_asked_to_be_without_xdp_is_no_fault() -> None:
    lro = replace(ETH, lro=True)
    assert judge(switch(TAP, lro, seen=(lro,), at=Hook.TC)) == []


def test_a_port_on_hardware_that_was_asked_to_be_without_xdp_is_no_fault() -> None:
    nic = replace(TAP, kind="")
    assert judge(switch(nic, ETH, seen=(nic,), hook=Hook.TC)) == []


def test_hardware_that_is_not_attached_is_not_said_to_be_without_xdp() -> None:
    state = switch(TAP, replace(ETH, lro=True, master="br0"))
    handle = state.handle_of_uplink("eth1")
    del state.attached[handle], state.xdp[handle]
    [(_, what, _)] = judge(state)
    assert what.startswith("uplink eth1 is pending")


def test_an_uplink_that_merges_frames_or_shares_a_vlan_is_bad() -> None:
    vlan = Device(ifname="eth1.10", ifindex=9, kind="vlan", lower=3, vid=10)
    other = Device(ifname="eth1.11", ifindex=10, kind="vlan", lower=3, vid=11)
    found = judge(switch(TAP, ETH, vlan, other), eth1=Inspection(lro=True))
    assert [(level, mend) for level, _, mend in found] == [
        (Level.BAD, "`ethtool -K eth1 lro off`"),
        (Level.BAD, "give one of them another VLAN, or remove eth1.10"),
    ]


def test_an_uplink_keeps_the_hosts_addresses_and_arp() -> None:
    assert judge(switch(TAP, replace(ETH, addresses=("192.0.2.1",)))) == []


def test_an_internal_port_is_judged_by_its_switch_side() -> None:
    switch = Switch({}, host="hv1")
    draft = switch.draft()
    draft.add_segment(BLUE)
    draft.attach_port(Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue"))
    plan = draft.plan()
    switch.commit(plan)
    peer = Device(
        ifname=plan.state.device_name(plan.state.ports["host0"]), ifindex=5, kind="veth", arp=False, ipv6=False
    )
    draft = switch.draft()
    host = Device(ifname="host0", ifindex=6, kind="veth", addresses=("10.0.0.1",))
    draft.links_read([peer, host])
    switch.commit(draft.plan())
    assert judge(switch.state) == []

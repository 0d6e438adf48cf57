"""What the agent says. The keys are normative: scripts and tests hold on to them (docs/commands.md)."""

from __future__ import annotations

import msgspec

from vxagent.model.binding import Phase, Role
from vxagent.model.port import Enforce, Mode, PortState


class Answer(msgspec.Struct):
    """What the agent says."""


class Done(Answer):
    """A change was made, or (`changed` false) things were so already.

    Attributes:
        note: what a person should know about how it stands now, "" for nothing.
        warnings: sentences about what was asked for and has no effect yet.
    """

    changed: bool = True
    note: str = ""
    warnings: list[str] = []


class Flushed(Answer):
    """Learned entries that went."""

    removed: int


class ChangeView(Answer):
    """One difference between what is and what a document asks for."""

    action: str
    kind: str
    name: str
    what: list[str]


class Applied(Answer):
    """What `apply` changed."""

    changes: list[ChangeView]
    warnings: list[str] = []


class OverlayView(Answer):
    """This host's part in the overlay: its tunnel address, the underlay device, and why that is not up, or ""."""

    vtep: str
    device: str
    state: PortState
    why: str


class HostView(Answer):
    """A host of the cluster.

    Attributes:
        live: the engine hears of its agent.
        silent: this host has not heard of it for long, asked its VTEP in vain, and floods nothing to it. Another host
            may see it otherwise.
        ports: how many are bound to it.
    """

    host: str
    vtep: str | None
    live: bool
    silent: bool
    ports: int


class BindingView(Answer):
    """Where a port runs, and where it is to run next."""

    port: str
    segments: list[str]
    macs: list[str]
    ips: list[str]
    owner: str
    next: str | None
    phase: Phase
    epoch: int


class MigrationView(Answer):
    """A port of this host that is on its way. role: `owner` or `next`; state: of the port here."""

    port: str
    role: Role
    owner: str
    next: str | None
    phase: Phase
    state: PortState


class Switched(Answer):
    """A switchover that was done. missing: hosts that have not said within its time that they know."""

    next: str
    missing: list[str]


class Evacuated(Answer):
    """Ports that were a dead host's and are this host's now. left: those that nobody else can have."""

    ports: list[str]
    left: list[str]


class Forgotten(Answer):
    """A dead host that is gone for good. ports: those of its own that went with it."""

    ports: list[str]


class StatusView(Answer):
    """How the agent is.

    Attributes:
        overlay: null: this host has none.
        drift: kind of thing → how often one of it was not as it should be; kinds of which none was are left out.
        repairs: the same, of those that were put right.
        postponed: the same, of those that were left for later, because they drift again and again.
        foreign: hook → programs of others there on the switch's devices.
    """

    version: str
    host: str
    ready: bool
    pid: int
    uptime_s: int
    ports: int
    segments: int
    fdb_entries: int
    cluster: str
    overlay: OverlayView | None
    drift: dict[str, int]
    repairs: dict[str, int]
    postponed: dict[str, int]
    foreign: dict[str, int]


class FindingView(Answer):
    """One line of `doctor`. level: ok, warn or bad; mend: what to do, "" where nothing is."""

    level: str
    what: str
    mend: str


class SegmentView(Answer):
    """A segment as `segment list` shows it."""

    name: str
    tenant: str
    vlan: int | None
    vni: int | None
    mtu: int
    unknown_unicast: str
    multicast_snooping: bool
    ports: list[str]


class GroupView(Answer):
    """Somebody behind a port, an uplink or a VTEP has joined a group; in `expires_s` it counts as having left.

    port, vtep: one of them is null.
    """

    group: str
    port: str | None
    expires_s: float
    vtep: str | None = None


class SegmentDetail(SegmentView):
    """A segment as `segment show` shows it.

    Attributes:
        queriers: "ipv4", "ipv6": seconds for which there still counts one as alive; null: there is none, and
            multicast of that family goes everywhere.
        uplinks, vteps: by which it is on other hosts.
        bridges: this host takes its frames from its VLAN to its VNI and back.
        router_ports, router_vteps: ports and uplinks, and VTEPs, that get every group, because a multicast router is
            behind them.
        groups: who has joined which.
        joins_refused: joins for which there was no room.
    """

    uplinks: list[str]
    vteps: list[str]
    bridges: bool
    queriers: dict[str, float | None]
    router_ports: list[str]
    router_vteps: list[str]
    groups: list[GroupView]
    joins_refused: int
    fdb_entries: dict[str, int]
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: dict[str, int]


class MembershipView(Answer):
    """A port in a segment; vid null: untagged."""

    segment: str
    vid: int | None


class PortView(Answer):
    """A port as `port list` shows it.

    Attributes:
        rx_packets, rx_bytes: from the VM, every frame, dropped ones too.
        drops: frames from the VM that the switch dropped.
        egress_failed: frames for the VM that its device took and lost.
        rate_in, rate_out: in canonical form, such as "100Mbit" or "1Gbit,100kpps"; null: no limit.
        storm_broadcast, storm_multicast, storm_unknown: frames a second; null: no limit.
        hook: "xdp+tc" or "tc", where the switch's program runs.
        hook_why: why not at XDP, "" where it does.
        dhcp_snoop: it may use what it lists and what DHCP servers lease to it.
        enforce: "on", or "shadow": what guards and limits refuse is counted and goes on.
    """

    id: str
    ifname: str
    state: PortState
    mode: Mode
    segments: list[MembershipView]
    macs: list[str]
    ips: list[str]
    hook: str
    hook_why: str
    isolated: bool
    trusted: bool
    rate_in: str | None
    rate_out: str | None
    storm_broadcast: int | None
    storm_multicast: int | None
    storm_unknown: int | None
    dhcp_snoop: bool
    enforce: Enforce
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: int
    egress_failed: int


class LeaseView(Answer):
    """An address that a DHCP server has given to a port's VM; expires_s null: for ever."""

    ip: str
    mac: str
    segment: str
    expires_s: float | None


class PortDetail(PortView):
    """A port as `port show` shows it.

    Attributes:
        why: what keeps it from being up, "" when it is.
        max_macs, learned: the quota and what it holds now.
        learn_rate: new and moved MACs learned in a second; null: no limit.
        limited, moved, full: frames whose source was not learned for the quota or the rate; MACs that came
            from another port; frames whose source was not learned because the FDB was full.
        held: MACs that it contended for, until they were held where they had been.
        leases: what DHCP servers have leased to it, where it is held to that.
        leases_refused: leases that there was no room for.
        events_suppressed: events of it that the log was not told, because there were too many.
        verdicts: frames from the VM by verdict.
        copies: frames made out of them.
        drops_by_reason: frames from the VM that were dropped.
        shadow_drops: frames from the VM that went on, but would have been dropped were it not for `enforce`; one
            that several guards refuse counts for each.
    """

    why: str
    hook_asked: str
    max_macs: int
    learn_rate: int | None
    learned: int
    limited: int
    moved: int
    full: int
    held: int
    leases: list[LeaseView]
    leases_refused: int
    events_suppressed: int
    verdicts: dict[str, int]
    copies: int
    drops_by_reason: dict[str, int]
    shadow_drops: dict[str, int]


class UplinkView(Answer):
    """An uplink as `uplink list` shows it; rx is from the physical network.

    hook, hook_why, events_suppressed: as of ports.
    """

    ifname: str
    state: PortState
    hook: str
    hook_why: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    drops: int
    events_suppressed: int
    why: str


class VtepView(Answer):
    """A VTEP as `vtep list` shows it; rx is from it.

    Attributes:
        host: of the cluster, whose it is; null: it was stated.
        segments: those of this host whose VNIs it has.
        state, why: `pending` where no tunnel goes to it, else that of the underlay device.
        events_suppressed: as of ports.
    """

    address: str
    host: str | None
    vnis: list[int]
    segments: list[str]
    state: PortState
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    drops: int
    events_suppressed: int
    why: str


class FdbView(Answer):
    """An FDB entry. age_s null: does not age.

    port, vtep: a port id or an uplink's device, or an address; one of them is null.
    held_s: for so long a MAC that moved too often is learned nowhere else; null: it is not held.
    """

    segment: str
    tenant: str
    mac: str
    port: str | None
    vtep: str | None
    origin: str
    age_s: float | None
    held_s: float | None


class DropView(Answer):
    """Frames dropped for one reason; port, vtep and segment null where there was none.

    copies: not frames that the port brought, but copies of a flood that it did not get.
    shadow: not dropped, but would have been, were the port's guards and limits in force.
    """

    port: str | None
    vtep: str | None
    segment: str | None
    reason: str
    packets: int
    bytes: int
    copies: bool
    shadow: bool


class Problem(Answer):
    """What went wrong, and what the command line ends with."""

    type: str
    message: str
    exit_code: int


class Failure(Answer):
    """The body of every answer that is no success."""

    error: Problem

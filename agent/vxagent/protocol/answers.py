"""What the agent says. The keys are normative: scripts and tests hold on to them (docs/commands.md)."""

from __future__ import annotations

import msgspec

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


class StatusView(Answer):
    """How the agent is.

    Attributes:
        drift: kind of thing → how often one of it was not as it should be; kinds of which none was are left out.
        repairs: the same, of those that were put right.
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
    drift: dict[str, int]
    repairs: dict[str, int]
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
    """Somebody behind a port or uplink has joined a group; in `expires_s` it counts as having left."""

    group: str
    port: str
    expires_s: float


class SegmentDetail(SegmentView):
    """A segment as `segment show` shows it.

    Attributes:
        queriers: "ipv4", "ipv6": seconds for which there still counts one as alive; null: there is none, and
            multicast of that family goes everywhere.
        router_ports: ports and uplinks that get every group, because a multicast router is behind them.
        groups: who has joined which.
        joins_refused: joins for which there was no room.
    """

    uplinks: list[str]
    queriers: dict[str, float | None]
    router_ports: list[str]
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


class FdbView(Answer):
    """An FDB entry. port: a port id or an uplink's device; age_s null: does not age.

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
    """Frames dropped for one reason; port and segment null where there was none.

    copies: not frames that the port brought, but copies of a flood that it did not get.
    shadow: not dropped, but would have been, were the port's guards and limits in force.
    """

    port: str | None
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

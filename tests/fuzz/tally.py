"""What a run has reached: how many frames of which kinds, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fuzz.grammar import Shot
from reference.switch import Switch
from reference.walk import Outcome

FATES = frozenset(
    {
        *("forwarded", "flooded", "replied", "to_host"),
        *("malformed", "link_local", "vlan_denied", "src_invalid", "standby"),
        *("src_mac_denied", "src_mac_conflict", "src_ip_denied", "fragment_denied", "arp_spoof", "nd_spoof"),
        *("dhcp_server_denied", "ra_denied", "rate_limited", "storm_limited"),
        *("hairpin", "isolated", "mtu_exceeded", "unknown_unicast", "no_destination", "vtep_denied"),
    }
)
"""Every verdict, and every reason that the data plane has."""

SHADOWED = frozenset(
    {
        *(
            "malformed",
            "src_mac_denied",
            "src_mac_conflict",
            "src_ip_denied",
            "fragment_denied",
            "arp_spoof",
            "nd_spoof",
        ),
        *("dhcp_server_denied", "ra_denied", "rate_limited", "storm_limited"),
    }
)
"""Every reason for which a port in shadow drops nothing."""

EVENTS = frozenset({"mac_moved", "learn_limited", "fdb_full", "mac_held"})
LEASES, MEMBERSHIPS = "leases", "memberships"
SUPPRESSED = "events that were not told"
LOST, SPARED = "copies lost to a rate", "copies that nobody joined for"


@dataclass(slots=True)
class Tally:
    """copies: made; heard: of them, those whose bytes were read from a tap."""

    frames: int = 0
    settings: int = 0
    copies: int = 0
    heard: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    shadowed: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def add(self, shot: Shot, outcome: Outcome) -> None:
        """Count one frame."""
        self.frames += 1
        self.copies += len(outcome.copies)
        self.fates[outcome.fate] += 1
        self.events.update({LOST: len(outcome.lost), SPARED: outcome.spared})
        self.shadowed.update(reason for _, reason in outcome.shadowed)
        self.kinds.update(shot.kinds)
        self.ways[shot.way] += 1

    def remember(self, switch: Switch) -> None:
        """Count what is left of a setting."""
        self.events.update(kind for kind, *_ in switch.events)
        self.events[SUPPRESSED] += sum(switch.events.suppressed.values())
        self.events.update({LEASES: sum(switch.neighbours.held.values()), MEMBERSHIPS: len(switch.groups.members)})

    def missed(self) -> frozenset[str]:
        """What a run ought to reach and has not."""
        shadowed = SHADOWED - set(+self.shadowed)
        return (
            (FATES - set(+self.fates))
            | (EVENTS | {SUPPRESSED, LOST, SPARED, LEASES, MEMBERSHIPS}) - set(+self.events)
            | {f"{r} in shadow" for r in shadowed}
        )

    def lines(self) -> Iterator[str]:
        """A summary in Markdown."""
        yield f"{self.frames:,} frames in {self.settings:,} settings, no difference. Of {self.copies:,} copies"
        yield f"{self.heard:,} were read from a tap and compared byte for byte."
        for title, counter in (
            ("Verdicts and drop reasons", self.fates),
            ("Reasons in shadow", self.shadowed),
            ("Ways in", self.ways),
            ("Frames, by what they are (one may be several)", self.kinds),
            ("Events, copies that were not made, and what was remembered in the end", self.events),
        ):
            yield f"\n| {title} | |\n|---|---|"
            yield from (f"| {name} | {count:,} |" for name, count in counter.most_common() if count)

"""What became of a frame, as the data plane's own counters tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from support.rig import Rig
from vxagent.datapath.abi import Verdict

# <linux/pkt_cls.h>
TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT = 0xFFFFFFFF, 2, 7

_COUNTED = (Verdict.FORWARDED, Verdict.FLOODED, Verdict.REPLIED, Verdict.TO_HOST)
FORWARDED, FLOODED, REPLIED, TO_HOST = (verdict.name.lower() for verdict in _COUNTED)
SENT, COPIES = "sent", "copies"

Counts = dict[tuple[str, int, int], tuple[int, int]]
"""(verdict, reason, `SENT` or `COPIES`; port; segment) → (packets, bytes), bytes 0 for copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the counters say of one frame.

    Attributes:
        fate: "forwarded", "flooded", "replied", "to_host", or the reason of a drop.
        where: (port, segment) that it was counted for.
        octets: that were counted there.
        sent: port → (packets, bytes) that were sent there.
    """

    fate: str
    where: tuple[int, int]
    octets: int
    sent: dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Judgement):
    """The same, and what was seen of it.

    Attributes:
        frames: port → what arrived there, in order.
        action: what the program returned; None where the kernel took it.
        data: of a test run: the frame afterwards, without a tag that is in skb->vlan_tci.
    """

    frames: dict[int, list[bytes]] = field(default_factory=dict)
    action: int | None = None
    data: bytes = b""


def count(rig: Rig, counters: Mapping[tuple[int, int], int]) -> Counts:
    """Everything that is counted so far.

    Args:
        counters: (port, segment) → index into `traffic`.
    """
    drops = {(reason, port, segment): value for (port, segment, reason), value in rig.drops().items()}
    return dict(_traffic(rig, counters)) | drops


def _traffic(
    rig: Rig, counters: Mapping[tuple[int, int], int]
) -> Iterator[tuple[tuple[str, int, int], tuple[int, int]]]:
    for where, index in counters.items():
        row = rig.traffic(index)
        for verdict in _COUNTED:
            yield (verdict.name.lower(), *where), (row["packets"][verdict], row["bytes"][verdict])
        yield (SENT, *where), (row["tx"][0], row["tx"][1])
        yield (COPIES, *where), (row["copies"][0], 0)


def judge(before: Counts, after: Counts) -> Judgement:
    """What has come of the one frame in between: it has one verdict, and as many copies as were sent."""
    change = {
        key: (packets - before.get(key, (0, 0))[0], octets - before.get(key, (0, 0))[1])
        for key, (packets, octets) in after.items()
        if (packets, octets) != before.get(key, (0, 0))
    }
    copies = sum(packets for (what, *_), (packets, _) in change.items() if what == COPIES)
    sent = {port: value for (what, port, _), value in change.items() if what == SENT}
    assert copies == sum(packets for packets, _ in sent.values())
    verdicts = {key: value for key, value in change.items() if key[0] not in (SENT, COPIES)}
    assert len(verdicts) == 1, f"one frame has the verdicts {verdicts}"
    (((fate, port, segment), (packets, octets)),) = verdicts.items()
    assert packets == 1, f"{fate} is counted {packets} times"
    return Judgement(fate=fate, where=(port, segment), octets=octets, sent=sent)

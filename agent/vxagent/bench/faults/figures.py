"""What the numbers of the streams come to during one fault. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NS_PER_S = 1_000_000_000
PROMISED = 100_000  # frames in a second, at which nothing may happen to any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the sender says.

    Attributes:
        frames: of each stream.
        refused: of these, what the VM's own device did not take.
        ns: in which time.
        realtime: it ran at real-time priority.
    """

    frames: Sequence[int]
    refused: Sequence[int] = ()
    ns: int = NS_PER_S
    realtime: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the receivers say.

    Attributes:
        received, duplicated, reordered: of each stream; received counts each number once.
        astray: frames at a receiver of another tenant.
        overflow: frames that a receiver had no room for, in its tap's ring or its socket's.
        realtime: they ran at real-time priority.
    """

    received: Sequence[int]
    duplicated: Sequence[int]
    reordered: Sequence[int]
    astray: int = 0
    overflow: int = 0
    realtime: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One fault's result.

    Attributes:
        fault: its name.
        times: how often it was done.
        sent, lost, duplicated, reordered, astray, overflow: frames, of all streams together.
        rate: frames sent in a second.
        seconds: for which the streams ran.
        realtime: sender and receivers had real-time priority.
        streams: the name of each → (sent, lost, duplicated, reordered).
        said: the lines with which commands were refused, each once.
        broken: what went wrong apart from frames; "": nothing.
        not_here: why this machine cannot do it; "": it was done.
    """

    fault: str
    times: int = 0
    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    astray: int = 0
    overflow: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    realtime: bool = True
    streams: dict[str, tuple[int, int, int, int]] | None = None
    said: tuple[str, ...] = ()
    broken: str = ""
    not_here: str = ""

    @property
    def valid(self) -> bool:
        """The receivers had room for every frame, so that what is lost was lost on its way."""
        return not self.overflow

    @property
    def good(self) -> bool:
        """Nothing happened to any frame, and what else should be was so. What cannot be done here is no failure."""
        harmed = self.lost or self.duplicated or self.reordered or self.astray
        return bool(self.not_here) or (self.valid and not harmed and not self.broken and self.sent > 0)

    @property
    def slow(self) -> tuple[str, ...]:
        """Why it shows less than is promised, however good it is; empty: it does not."""
        if self.not_here:
            return ()
        slow = () if self.rate >= PROMISED else (f"only {self.rate:,.0f} frames/s could be sent",)
        return slow if self.realtime else ("without real-time priority, receivers may have no room", *slow)

    @property
    def why(self) -> str:
        """What is not good, in one line."""
        if self.broken:
            return self.broken
        if not self.valid:
            return f"not valid: the receivers had no room for {self.overflow} frames"
        counted = {name: getattr(self, name) for name in ("lost", "duplicated", "reordered", "astray")}
        return ", ".join(f"{count} frames {name}" for name, count in counted.items() if count) or "nothing was sent"


def judge(fault: str, times: int, names: Sequence[str], sent: Sent, taken: Taken) -> Figures:
    """What a run comes to, in which nothing else went wrong.

    A frame that a receiver had no room for is not lost on its way: it counts as overflow alone.
    """
    missing = [one - got for one, got in zip(sent.frames, taken.received, strict=True)]
    rows = zip(sent.frames, missing, taken.duplicated, taken.reordered, strict=True)
    return Figures(
        fault=fault,
        times=times,
        sent=sum(sent.frames),
        lost=max(sum(missing) - taken.overflow, 0),
        duplicated=sum(taken.duplicated),
        reordered=sum(taken.reordered),
        astray=taken.astray,
        overflow=taken.overflow,
        rate=sum(sent.frames) * NS_PER_S / sent.ns if sent.ns else 0.0,
        seconds=sent.ns / NS_PER_S,
        realtime=sent.realtime and taken.realtime,
        streams=dict(zip(names, rows, strict=True)),
    )

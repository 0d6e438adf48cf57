"""What migrations cost VMs: for how long their frames reached them nowhere, and how many are lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

log = logging.getLogger(__name__)

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MigrationFigures:
    """Of one host, since its agent was started.

    A blackout is as long as a VM's frames reached it neither here nor there. It begins when its host redirects what
    comes for it, as part of the switchover, and ends when the next one has its port up. Clocks of two hosts are not
    compared: that host says how long its own part took, up to the engine's answer; this one hears of it at about that
    moment. A VM that nobody has switched over is away since an unknown moment: its announcement stands for that.
    """

    def __init__(self) -> None:
        self._blackouts = Histogram(
            "vxagent_migration_blackout_seconds",
            "For how long the frames of VMs that came here reached them at neither host.",
            buckets=BUCKETS_S,
            registry=None,
        )
        self._lost = Counter(
            "vxagent_migration_lost_packets",
            "Frames that waited here for VMs that stayed where they were.",
            registry=None,
        )
        self._since: dict[str, float] = {}

    def begin(self, port: str) -> None:
        """From now on this host waits for the VM of a port."""
        self._since.setdefault(port, time.monotonic())

    def end(self, port: str) -> float | None:
        """It does no longer. For how long it did, in seconds; None: an agent before this one has begun."""
        since = self._since.pop(port, None)
        return None if since is None else time.monotonic() - since

    def arrived(self, port: str, waited_s: float, left_s: float | None) -> None:
        """A VM has come here.

        Args:
            waited_s: this host's part of its blackout.
            left_s: the part of the host that it left; None: that has not said.
        """
        blackout_s = waited_s + (left_s or 0.0)
        self._blackouts.observe(blackout_s)
        at_least = "at least " if left_s is None else ""
        log.info("port %s runs here; its VM had no frames for %s%.1f ms", port, at_least, blackout_s * 1000)

    def stayed(self, port: str, frames: int) -> None:
        """A VM did not come; so many frames had waited for it."""
        if frames:
            self._lost.inc(frames)
            log.warning("port %s stays where it was; %d frames that waited for its VM here are lost", port, frames)

    def collect(self) -> Iterator[Metric]:
        """As metrics."""
        yield from self._blackouts.collect()
        yield from self._lost.collect()

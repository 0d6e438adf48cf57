"""Link events that wait for their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from vxagent.netlink.base import LinkChange


class LinkInbox:
    """Takes events one by one, gives them in batches.

    Of several events of one device the last one counts, but a device that went and came back is two devices:
    nothing that ran on the first runs on the second. So a batch ends before the second one.

    Attributes:
        lost: events were lost; the devices must be read anew.
    """

    def __init__(self) -> None:
        self.lost = False
        self._waiting: deque[LinkChange] = deque()

    def __bool__(self) -> bool:
        return self.lost or bool(self._waiting)

    def put(self, change: LinkChange | None) -> None:
        """An event; None: some were lost."""
        if change is None:
            self.lost = True
        else:
            self._waiting.append(change)

    def clear(self) -> None:
        """Forget what waits: the devices are about to be read anew."""
        self.lost = False
        self._waiting.clear()

    def take(self, limit: int, counts: Callable[[LinkChange], bool]) -> list[LinkChange]:
        """The next batch: at most `limit` changes for which `counts` is true, and any number of others."""
        batch: dict[int, LinkChange] = {}
        counted = 0
        while self._waiting:
            change = self._waiting[0]
            earlier = batch.get(change.ifindex)
            if earlier is None:
                counted += counts(change)
                if counted > limit:
                    break
            elif earlier.device is None:
                break
            batch[change.ifindex] = self._waiting.popleft()
        return list(batch.values())

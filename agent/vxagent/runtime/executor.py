"""The one place where effects meet the kernel and the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from vxagent.core.effects import (
    AddCounts,
    Announce,
    Attach,
    ClearCounters,
    DeleteRow,
    Detach,
    Effect,
    EndLeases,
    Finish,
    FlushFdb,
    MakeInternal,
    Mend,
    PutLease,
    PutRow,
    RemoveInternal,
    Save,
    SetDevice,
    SetQueue,
    SetXdp,
    inverse,
)
from vxagent.datapath.base import Datapath
from vxagent.errors import VxagentError
from vxagent.netlink.base import Links
from vxagent.runtime.watchdog import Progress
from vxagent.store.base import Store

log = logging.getLogger(__name__)


class Executor:
    """Applies effects, through the three adapters, one thread at a time.

    Attributes:
        torn: an effect could not be undone, so the kernel may not be what the switch's state says.
        progress: is told of each effect.
    """

    def __init__(self, datapath: Datapath, links: Links, store: Store) -> None:
        self._act: dict[type, Callable[..., object]] = {
            Save: store.save,
            Finish: store.finish,
            PutRow: datapath.put,
            DeleteRow: datapath.delete,
            Attach: datapath.attach,
            Detach: datapath.detach,
            SetXdp: datapath.set_xdp,
            FlushFdb: datapath.flush,
            PutLease: datapath.put_lease,
            EndLeases: datapath.end_leases,
            AddCounts: datapath.add_counts,
            Announce: datapath.announce,
            ClearCounters: datapath.clear_counters,
            Mend: datapath.mend,
            SetDevice: links.set_device,
            SetQueue: links.set_queue,
            MakeInternal: links.make_internal,
            RemoveInternal: links.remove_internal,
        }
        self.torn = False
        self.progress = Progress()

    def run(self, effects: Iterable[Effect]) -> None:
        """Apply effects in order. When one fails, undo those before it, last first, and raise its error.

        Blocks: creating a link waits for the kernel (~8 ms each).

        Raises:
            HostError, StoreError: from the adapter; afterwards things are as before, but for what the log says.
        """
        done: list[Effect] = []
        try:
            for effect in effects:
                self._act[type(effect)](effect)
                self.progress.beat()
                done.append(effect)
        except BaseException:
            self._undo(done)
            raise

    def _undo(self, done: list[Effect]) -> None:
        for effect in reversed(done):
            opposite = inverse(effect)
            if opposite is None:
                continue
            try:
                self._act[type(opposite)](opposite)
            except VxagentError as error:
                self.torn = True
                log.error("cannot undo %s: %s", effect, error)  # noqa: TRY400  # the trace would say nothing more

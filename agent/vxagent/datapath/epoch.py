"""The number by which the data plane knows that what it remembers of flows no longer counts (bpf/flow.h)."""

from __future__ import annotations

from vxagent.datapath.bpf_map import Map
from vxagent.datapath.codec import U32, U64

_AGENT = U32.pack(0)  # other numbers are segments', which the data plane raises


class Epoch:
    """The agent's number. It alone writes it, one thread at a time.

    Args:
        epochs: the map.
    """

    def __init__(self, epochs: Map) -> None:
        self._epochs = epochs

    def rise(self) -> None:
        """A table has changed. Until then, programs may go by what it was before."""
        value = self._epochs.lookup(_AGENT)
        self._epochs.update(_AGENT, U64.pack(U64.unpack(value)[0] + 1 if value else 1))

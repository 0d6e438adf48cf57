"""What the agent asks of its state database; `local` does it with SQLite, `fake` in memory."""

from __future__ import annotations

from typing import Protocol

from vxagent.core.effects import Document, Finish, Save


class Store(Protocol):
    """Desired state as documents by (kind, name).

    Kinds: "segment", "port", "uplink", "fdb" (name "SEGMENT/MAC"), "number" (handles, slots and counters
    given to them), "lease" (what a port has leased, as last seen), "before" (how a device was set before the
    switch took it) and "unfinished" (what may be left of the last change to be done).

    Raises (all methods but `finish`): StoreError.
    """

    def load(self) -> dict[tuple[str, str], Document]:
        """Everything."""

    def save(self, effect: Save) -> None:
        """Change it, in one transaction that is on the disk when this returns."""

    def finish(self, effect: Finish) -> None:
        """Remove what is kept of the last change. It may be back after a power cut, and where the file cannot be
        written it stays, which is logged."""

    def close(self) -> None:
        """Let go of the file."""

"""The state database in memory."""

from __future__ import annotations

import copy

from vxagent.core.effects import Document, Finish, Save
from vxagent.core.unfinished import UNFINISHED
from vxagent.errors import StoreError


class FakeStore:
    """`store.base.Store` without a file.

    Attributes:
        documents: what it holds.
        saves: how many changes were made.
        fail_at: raise StoreError at the n-th save from now (0: never).
        closed: `close` was called.
    """

    def __init__(self, documents: dict[tuple[str, str], Document] | None = None) -> None:
        self.documents = documents or {}
        self.saves = 0
        self.fail_at = 0
        self.closed = False

    def load(self) -> dict[tuple[str, str], Document]:
        """Everything."""
        return copy.deepcopy(self.documents)

    def save(self, effect: Save) -> None:
        """Change it."""
        if self.fail_at:
            self.fail_at -= 1
            if not self.fail_at:
                raise StoreError("the fake was told to fail here")
        self.documents.update(copy.deepcopy(effect.put))
        for key in effect.delete:
            self.documents.pop(key, None)
        self.saves += 1

    def finish(self, effect: Finish) -> None:
        """Remove what is kept of the last change."""
        self.documents.pop(UNFINISHED, None)

    def close(self) -> None:
        """Let go of it."""
        self.closed = True

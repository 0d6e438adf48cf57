"""Lets into the API who may ask it."""

from __future__ import annotations

import logging
import os
from typing import Any

from vxagent.runtime.operation import failure
from vxagent.runtime.peers import App, Scope, group_name, may_ask, who

log = logging.getLogger(__name__)


class Gate:
    """An application that lets in only who may ask; the others get 403 and a sentence, and the log a line.

    Args:
        app: what is behind it.
        gid: the group of the socket.
    """

    def __init__(self, app: App, gid: int) -> None:
        self._app = app
        self._gid = gid

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        peer = scope.get("state", {}).get("peer")
        if peer is not None and may_ask(peer, uid=os.geteuid(), gid=self._gid):
            await self._app(scope, receive, send)
            return
        log.warning("refused %s: not root, not the agent's user, not in its socket's group", who(peer))
        message = f"you may not ask this agent; it takes root, its own user and group {group_name(self._gid)}"
        await failure("Forbidden", message, 403)(scope, receive, send)

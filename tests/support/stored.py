"""What the engine of a lab holds of its cluster, read and written behind the agents' backs."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

from vxagent.model.binding import Binding
from vxagent.store.kv import KeyValue, prefix
from vxagent.store.schema import Keys, parse_binding


class Answers(Protocol):
    """An engine of a lab."""

    def ask(self, path: str, **question: Any) -> Any:
        """Ask its JSON gateway."""


class Stored:
    """The keys of one cluster, without their root.

    Args:
        cluster: its name.
    """

    def __init__(self, etcd: Answers, cluster: str = "lab") -> None:
        self._etcd = etcd
        self._keys = Keys(cluster)

    def put(self, key: str, value: str) -> None:
        """As somebody else's tool would."""
        self._etcd.ask("kv/put", key=_coded(self._keys.root + key), value=_coded(value))

    def delete(self, key: str) -> None:
        """As somebody else's tool would."""
        self._etcd.ask("kv/deleterange", key=_coded(self._keys.root + key))

    def get(self, key: str) -> str | None:
        """The value of one key."""
        found = self._range(key=_coded(self._keys.root + key))
        return found[0].value.decode() if found else None

    def read(self, key: str) -> Any:
        """The same, of one that is there, as the JSON that it is."""
        value = self.get(key)
        assert value is not None, f"there is no {key}"
        return json.loads(value)

    def all(self, *kinds: str) -> dict[str, tuple[str, int]]:
        """Key → value and the revision in which it was written, of all keys below these."""
        below = prefix(self._keys.root) if not kinds else self._keys.all(*kinds)
        found = self._range(key=_coded(below.key), range_end=_coded(below.end))
        return {kv.key.removeprefix(self._keys.root): (kv.value.decode(), kv.mod_revision) for kv in found}

    def history(self, port: str) -> list[Binding]:
        """All that the port's binding has been since it was bound, oldest first."""
        told: list[Binding] = []
        revision = 0  # the newest
        while True:
            found = self._range(key=_coded(self._keys.port(port)), revision=revision)
            if not found:
                return told[::-1]
            binding = parse_binding(self._keys, found[0])
            assert isinstance(binding, Binding), binding
            told.append(binding)
            revision = binding.revision - 1

    def _range(self, **question: Any) -> list[KeyValue]:
        answer = self._etcd.ask("kv/range", **question)
        return [
            KeyValue(
                key=base64.b64decode(kv["key"]).decode(),
                value=base64.b64decode(kv.get("value", "")),
                create_revision=int(kv["create_revision"]),
                mod_revision=int(kv["mod_revision"]),
                lease=int(kv.get("lease", 0)),
            )
            for kv in answer.get("kvs", [])
        ]


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

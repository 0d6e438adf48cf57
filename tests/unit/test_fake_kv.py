"""The fake of the engine of many hosts keeps its contract; tests/etcd runs the same over etcd."""

from __future__ import annotations

import pytest

from support.engines import Engine, FakeShared
from support.kv_contract import KvContract


@pytest.fixture
def engine() -> Engine:
    return FakeShared()


class TestFakeKv(KvContract):
    """All of it."""

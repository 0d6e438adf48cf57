"""etcd keeps the contract of the engine of many hosts."""

from __future__ import annotations

import pytest

from support.engines import Engine, EtcdShared
from support.etcd_nodes import Nodes
from support.kv_contract import KvContract


@pytest.fixture
def engine(one_node: Nodes) -> Engine:
    return EtcdShared(one_node)


class TestEtcdKv(KvContract):
    """All of it."""

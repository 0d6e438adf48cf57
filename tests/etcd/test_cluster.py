"""Hosts that share etcd."""

from __future__ import annotations

import pytest

from support.cluster_contract import ClusterContract
from support.engines import Engine, EtcdShared
from support.etcd_nodes import Nodes


@pytest.fixture
def engine(one_node: Nodes) -> Engine:
    return EtcdShared(one_node)


class TestClusterOnEtcd(ClusterContract):
    """All of it."""

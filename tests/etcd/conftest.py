"""What the tests on etcd share. They need no root, and etcd, which `make setup` unpacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.etcd_nodes import Nodes, etcd_nodes


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One member, with TLS, for tests that do it no harm."""
    with etcd_nodes(tmp_path_factory.mktemp("etcd"), tls=True) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three members, for tests that do them harm and heal them."""
    with etcd_nodes(tmp_path_factory.mktemp("etcd"), 3) as nodes:
        yield nodes


@pytest.fixture
def fresh_nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three members whose history begins with the test."""
    with etcd_nodes(tmp_path, 3) as nodes:
        yield nodes

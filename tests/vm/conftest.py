"""Guests for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.lan import clean_world
from vm.lab.vms import Vms
from vxagent.lab.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """An empty world; nothing of it may be left afterwards."""
    with clean_world() as world:
        yield world


@pytest.fixture
def vms(world: World) -> Vms:
    """Makes guests in it."""
    return Vms(world)

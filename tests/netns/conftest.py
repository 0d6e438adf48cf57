"""A world for each test, and a switch in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.lan import Lan, clean_world
from vxagent.lab.agent import Agent
from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """An empty world; nothing of it may be left afterwards."""
    with clean_world() as world:
        yield world


@pytest.fixture
def switch(world: World) -> Namespace:
    """The switch's namespace. IPv6 is on there, as on a host."""
    return world.namespace("switch", ipv6=True)


@pytest.fixture
def agent(world: World, switch: Namespace) -> Agent:
    """An agent that is not started yet."""
    agent = Agent(world.directory(), switch)
    world.cleanup.callback(agent.end)
    return agent


@pytest.fixture
def lan(world: World, switch: Namespace, agent: Agent) -> Lan:
    """A switch that forwards: the agent is up, and VMs can be plugged in."""
    agent.up()
    return Lan(world, switch, agent)

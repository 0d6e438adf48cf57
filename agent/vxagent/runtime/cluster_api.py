"""The API of the cluster: hosts, bindings and migrations."""

from __future__ import annotations

from collections import Counter

from vxagent.core.migration import migrating
from vxagent.errors import Refused
from vxagent.model.binding import Binding, Role
from vxagent.protocol.answers import (
    BindingView,
    Done,
    Evacuated,
    Forgotten,
    HostView,
    MigrationView,
    Switched,
)
from vxagent.protocol.requests import HostEvacuate, MigratePrepare
from vxagent.runtime.evacuation import evacuate
from vxagent.runtime.left_behind import left_behind
from vxagent.runtime.loop import Agent
from vxagent.runtime.membership import Connection, Membership
from vxagent.runtime.migrations import Migrations
from vxagent.runtime.operation import OPERATIONS, Rows

at = OPERATIONS.at


def connection(agent: Agent) -> str:
    """What `status` says of the cluster."""
    return Connection.OFF if agent.membership is None else agent.membership.connection


@at("GET", "/v1/hosts")
async def list_hosts(agent: Agent) -> Rows[HostView]:
    """The hosts of the cluster, by name."""
    cluster = _membership(agent).cluster
    ports = Counter(binding.owner for binding in await cluster.bindings())
    hosts = sorted(await cluster.hosts(), key=lambda pair: pair[0].host)
    peers = agent.switch.state.remote.peers
    silent = {name for name, peer in peers.items() if peer.silent}
    views = [
        HostView(host=h.host, vtep=h.vtep, live=live is not None, silent=h.host in silent, ports=ports[h.host])
        for h, live in hosts
    ]
    return Rows(lambda: [views])


@at("POST", "/v1/hosts/{host}/evacuate")
async def evacuate_host(agent: Agent, body: HostEvacuate, *, host: str) -> Evacuated:
    """Take the ports of a dead host."""
    membership = _membership(agent)
    await membership.wait_connected()
    taken = await evacuate(agent.changes, membership.cluster, host, body.ifnames)
    left = [binding.id for binding in await membership.cluster.bindings() if binding.owner == host]
    return Evacuated(ports=taken, left=left)


@at("POST", "/v1/hosts/{host}/forget")
async def forget_host(agent: Agent, *, host: str) -> Forgotten:
    """Forget a dead host, and the ports that nobody else can have."""
    membership = _membership(agent)
    await membership.wait_connected()
    own = (await left_behind(membership.cluster, host, "stop its agent first")).own
    await membership.cluster.forget(host, own)
    return Forgotten(ports=list(own))


@at("GET", "/v1/bindings")
async def list_bindings(agent: Agent) -> Rows[BindingView]:
    """Where every port of the cluster runs, by id."""
    views = [_binding(binding) for binding in await _membership(agent).cluster.bindings()]
    return Rows(lambda: [views])


@at("GET", "/v1/migrations")
async def list_migrations(agent: Agent) -> Rows[MigrationView]:
    """The ports of this host that are on their way."""
    state = agent.switch.state
    views = [
        MigrationView(
            port=told.port,
            role=Role.OWNER if told.owner == state.host else Role.NEXT,
            owner=told.owner,
            next=told.next,
            phase=told.phase,
            state=state.port_state(told.port)[0],
        )
        for told in migrating(state.remote, state.host)
        if told.port in state.ports
    ]
    return Rows(lambda: [views])


@at("POST", "/v1/migrations/{port}/prepare")
async def prepare_migration(agent: Agent, body: MigratePrepare, *, port: str) -> Done:
    """Have a port's VM come to this host."""
    await _migrations(agent).prepare(port, body.ifname)
    return Done()


@at("POST", "/v1/migrations/{port}/switchover")
async def switch_over(agent: Agent, *, port: str) -> Switched:
    """A port's VM leaves this host."""
    done = await _migrations(agent).switchover(port)
    return Switched(next=done.next, missing=list(done.missing))


@at("POST", "/v1/migrations/{port}/activate")
async def activate_migration(agent: Agent, *, port: str) -> Done:
    """A port's VM runs here now."""
    await _migrations(agent).activate(port)
    return Done()


@at("POST", "/v1/migrations/{port}/cancel")
async def cancel_migration(agent: Agent, *, port: str) -> Done:
    """A port's VM stays where it is."""
    await _migrations(agent).cancel(port)
    return Done()


def _membership(agent: Agent) -> Membership:
    if agent.membership is None:
        raise Refused("this host is in no cluster", "give it a [cluster] in vxagent.toml, then start its agent anew")
    return agent.membership


def _migrations(agent: Agent) -> Migrations:
    _membership(agent)
    assert agent.migrations is not None  # they come together
    return agent.migrations


def _binding(binding: Binding) -> BindingView:
    return BindingView(
        port=binding.id,
        segments=list(binding.segments),
        macs=list(binding.macs),
        ips=list(binding.ips),
        owner=binding.owner,
        next=binding.next,
        phase=binding.phase,
        epoch=binding.epoch,
    )

"""The agent's HTTP API: what each path does.

The answers' keys are normative (docs/commands.md); `operation` turns these functions into HTTP and `openapi` into
the schema at /openapi.json.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Literal

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.status import HTTP_405_METHOD_NOT_ALLOWED

from vxagent.core.document import Change, export
from vxagent.core.effects import FlushFdb
from vxagent.core.overlay import troubles
from vxagent.core.switch import Draft
from vxagent.model.ids import check_mac
from vxagent.model.port import Mode, PortState
from vxagent.model.vtep import check_vtep
from vxagent.protocol.answers import (
    Applied,
    ChangeView,
    Done,
    DropView,
    FdbView,
    FindingView,
    Flushed,
    PortDetail,
    PortView,
    SegmentDetail,
    SegmentView,
    StatusView,
    UplinkView,
    VtepView,
)
from vxagent.protocol.requests import (
    Desired,
    DesiredText,
    FdbAdd,
    FdbFlush,
    PortAttach,
    PortSet,
    SegmentAdd,
    SegmentSet,
    UplinkAdd,
    VtepAdd,
    VtepSet,
)
from vxagent.runtime import cluster_api, desired, views
from vxagent.runtime.doctor import examine
from vxagent.runtime.loop import Agent
from vxagent.runtime.metrics import metrics_route
from vxagent.runtime.openapi import openapi
from vxagent.runtime.operation import DOCUMENT_LIMIT, OPERATIONS, Operation, Rows, Text, failure
from vxagent.runtime.overlay import overlay_view, tunnel_note, vtep_views
from vxagent.runtime.views import VERSION

at = OPERATIONS.at


def create_app(agent: Agent) -> Starlette:
    """The API of an agent, as an ASGI application."""
    routes = [
        Route(path, partial(_serve, agent, methods), methods=list(methods))
        for path, methods in OPERATIONS.by_path().items()
    ]
    app = Starlette(routes=[*routes, metrics_route(agent)], exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    return app


async def _serve(agent: Agent, methods: dict[str, Operation], request: Request) -> Response:
    return await methods["GET" if request.method == "HEAD" else request.method].serve(agent, request)


async def _no_route(request: Request, exc: Exception) -> Response:
    """Unknown path, or a method that it does not have."""
    assert isinstance(exc, HTTPException)
    kind = "WrongMethod" if exc.status_code == HTTP_405_METHOD_NOT_ALLOWED else "NoSuchPath"
    message = f"{request.method} {request.url.path}: {exc.detail.lower()}"
    return failure(kind, message, exc.status_code, headers=exc.headers)


# --- the agent -----------------------------------------------------------------------------------


@at("GET", "/v1/status")
async def show_status(agent: Agent) -> StatusView:
    """How the agent is."""
    state = agent.switch.state
    return StatusView(
        version=VERSION,
        host=agent.config.host,
        ready=agent.ready,
        pid=os.getpid(),
        uptime_s=int(time.monotonic() - agent.started),
        ports=len(state.ports),
        segments=len(state.segments),
        fdb_entries=await agent.read(agent.datapath.fdb_count),
        cluster=cluster_api.connection(agent),
        overlay=overlay_view(state),
        drift={str(kind): count for kind, count in agent.auditor.found.items() if count},
        repairs={str(kind): count for kind, count in agent.auditor.repaired.items() if count},
        postponed={str(kind): count for kind, count in agent.auditor.postponed.items() if count},
        foreign={hook: count for hook, count in agent.auditor.strangers.by_hook().items() if count},
    )


@at("GET", "/v1/doctor")
async def examine_host(agent: Agent) -> Rows[FindingView]:
    """Whether this host can run the switch, and how its devices are."""
    return Rows(lambda: [[FindingView(f.level, f.what, f.mend) for f in examine(agent)]])


@at("POST", "/v1/reload")
async def reload(agent: Agent) -> Done:
    """Swap the programs and reread the config, under traffic."""
    await agent.reload()
    return Done(warnings=[f"{trouble.what}; {trouble.mend}" for trouble in troubles(agent.switch.state)])


@at("POST", "/v1/stop")
async def stop(agent: Agent) -> Done:
    """End the agent; forwarding goes on."""
    await agent.stop()
    return Done()


@at("POST", "/v1/down")
async def down(agent: Agent) -> Done:
    """Take the whole switch off the devices and end the agent; desired state stays."""
    await agent.down()
    return Done()


# --- segments ------------------------------------------------------------------------------------


@at("GET", "/v1/segments")
async def list_segments(agent: Agent) -> Rows[SegmentView]:
    """All segments."""
    state = agent.switch.state
    return Rows(lambda: [views.segment_views(state)])


@at("GET", "/v1/segments/{name}")
async def show_segment(agent: Agent, *, name: str) -> SegmentDetail:
    """One segment with its traffic."""
    return await agent.read(partial(views.segment_detail, agent.switch.state, agent.datapath, name))


@at("POST", "/v1/segments")
async def add_segment(agent: Agent, body: SegmentAdd) -> Done:
    """Add a segment."""
    segment = body.model()
    return Done(changed=await agent.change(lambda draft: draft.add_segment(segment)))


@at("PATCH", "/v1/segments/{name}")
async def set_segment(agent: Agent, body: SegmentSet, *, name: str) -> Done:
    """Change a segment live."""
    changes = body.changes()

    def change(draft: Draft) -> bool:
        draft.set_segment(name, **changes)
        return draft.state.segments[name] != draft.base.segments[name]

    return Done(changed=await agent.change(change))


@at("DELETE", "/v1/segments/{name}")
async def delete_segment(agent: Agent, *, name: str) -> Done:
    """Delete a segment that nothing is in."""
    await agent.change(lambda draft: draft.delete_segment(name))
    return Done()


# --- ports ---------------------------------------------------------------------------------------


@at("GET", "/v1/ports")
async def list_ports(agent: Agent) -> Rows[PortView]:
    """All ports."""
    return Rows(partial(views.port_views, agent.switch.state, agent.datapath, agent.egress_failed))


@at("GET", "/v1/ports/{port}")
async def show_port(agent: Agent, *, port: str) -> PortDetail:
    """One port with all that is known of it."""
    state = agent.switch.state
    return await agent.read(partial(views.port_detail, state, agent.datapath, agent.egress_failed, port))


@at("POST", "/v1/ports")
async def attach_port(agent: Agent, body: PortAttach) -> Done:
    """Plug in a port; its device may come later."""
    port = body.model()
    changed = await agent.change(lambda draft: draft.attach_port(port))
    return _plugged(agent, port.id, changed)


@at("PATCH", "/v1/ports/{port}")
async def set_port(agent: Agent, body: PortSet, *, port: str) -> Done:
    """Change a port live."""
    changes = body.changes()

    def change(draft: Draft) -> bool:
        draft.set_port(port, **changes)
        return draft.state.ports[port] != draft.base.ports[port]

    changed = await agent.change(change)
    return _plugged(agent, port, changed)


@at("DELETE", "/v1/ports/{port}")
async def detach_port(agent: Agent, *, port: str) -> Done:
    """Unplug a port."""
    await agent.change(lambda draft: draft.detach_port(port))
    return Done()


def _plugged(agent: Agent, port_id: str, changed: bool) -> Done:
    """What to say of a port that was attached or set; somebody may have detached it in the meantime.

    What netlink has not told yet (that the device went up, that an internal port's was made) is not worth a note.
    """
    state = agent.switch.state
    port = state.ports.get(port_id)
    note = ""
    if port is not None and port.mode is not Mode.INTERNAL:
        is_, why = state.port_state(port_id)
        note = why if is_ is PortState.PENDING else ""
    return Done(changed=changed, note=note)


# --- uplinks -------------------------------------------------------------------------------------


@at("GET", "/v1/uplinks")
async def list_uplinks(agent: Agent) -> Rows[UplinkView]:
    """All uplinks."""
    state = agent.switch.state
    return Rows(lambda: [views.uplink_views(state, agent.datapath)])


@at("POST", "/v1/uplinks")
async def add_uplink(agent: Agent, body: UplinkAdd) -> Done:
    """Add an uplink."""
    uplink = body.model()
    changed = await agent.change(lambda draft: draft.add_uplink(uplink))
    state = agent.switch.state
    is_, why = state.uplink_state(uplink.ifname) if uplink.ifname in state.uplinks else (PortState.UP, "")
    return Done(changed=changed, note=why if is_ is PortState.PENDING else "")


@at("DELETE", "/v1/uplinks/{ifname}")
async def delete_uplink(agent: Agent, *, ifname: str) -> Done:
    """Remove an uplink."""
    await agent.change(lambda draft: draft.delete_uplink(ifname))
    return Done()


# --- VTEPs ---------------------------------------------------------------------------------------


@at("GET", "/v1/vteps")
async def list_vteps(agent: Agent) -> Rows[VtepView]:
    """All VTEPs of other hosts."""
    state = agent.switch.state
    return Rows(lambda: [vtep_views(state, agent.datapath)])


@at("POST", "/v1/vteps")
async def add_vtep(agent: Agent, body: VtepAdd) -> Done:
    """State the VTEP of another host."""
    vtep = body.model()
    changed = await agent.change(lambda draft: draft.add_vtep(vtep))
    return Done(changed=changed, note=tunnel_note(agent.switch.state, vtep.address))


@at("PATCH", "/v1/vteps/{address}")
async def set_vtep(agent: Agent, body: VtepSet, *, address: str) -> Done:
    """Change a VTEP live."""
    changes, canonical = body.changes(), check_vtep("address", address)

    def change(draft: Draft) -> bool:
        draft.set_vtep(canonical, **changes)
        return draft.state.vteps[canonical] != draft.base.vteps[canonical]

    changed = await agent.change(change)
    return Done(changed=changed, note=tunnel_note(agent.switch.state, canonical))


@at("DELETE", "/v1/vteps/{address}")
async def delete_vtep(agent: Agent, *, address: str) -> Done:
    """Forget a VTEP."""
    canonical = check_vtep("address", address)
    await agent.change(lambda draft: draft.delete_vtep(canonical))
    return Done()


# --- FDB and drops -------------------------------------------------------------------------------


@at("GET", "/v1/fdb")
async def list_fdb(agent: Agent, *, segment: str | None = None) -> Rows[FdbView]:
    """The FDB, of one segment or all."""
    return Rows(partial(views.fdb_views, agent.switch.state, agent.datapath, segment))


@at("POST", "/v1/fdb")
async def add_fdb(agent: Agent, body: FdbAdd) -> Done:
    """Add a static FDB entry."""
    entry = body.model()
    changed = await agent.change(lambda draft: draft.add_fdb(entry))
    return Done(changed=changed, note=tunnel_note(agent.switch.state, entry.vtep))


@at("DELETE", "/v1/fdb/{segment}/{mac}")
async def delete_fdb(agent: Agent, *, segment: str, mac: str) -> Done:
    """Remove a static FDB entry."""
    canonical = check_mac("mac", mac)
    await agent.change(lambda draft: draft.delete_fdb(segment, canonical))
    return Done()


@at("POST", "/v1/fdb/flush")
async def flush_fdb(agent: Agent, body: FdbFlush) -> Flushed:
    """Forget learned FDB entries."""
    state = agent.switch.state
    effect = FlushFdb(
        segment=None if body.segment is None else state.handle_of_segment(body.segment),
        port=None if body.port is None else views.handle_of(state, body.port),
    )
    return Flushed(removed=await agent.read(partial(agent.datapath.flush, effect)))


@at("GET", "/v1/drops")
async def list_drops(agent: Agent, *, port: str | None = None) -> Rows[DropView]:
    """Drop counters, the largest first."""
    state = agent.switch.state
    return Rows(lambda: [views.drop_views(state, agent.datapath, port)])


# --- desired state -------------------------------------------------------------------------------


@at("POST", "/v1/apply", limit=DOCUMENT_LIMIT)
async def apply(agent: Agent, body: DesiredText) -> Applied:
    """Make the desired state that of a document, all or nothing."""
    contents = await agent.read(partial(desired.parse, body.text, body.file))
    changes = await agent.change(lambda draft: draft.apply(contents, prune=body.prune))
    return _applied(changes)


@at("POST", "/v1/diff", limit=DOCUMENT_LIMIT, changes=False)
async def diff(agent: Agent, body: DesiredText) -> Applied:
    """What `apply` would change."""
    switch = agent.switch

    def compare() -> list[Change]:
        draft = switch.draft()
        changes = draft.apply(desired.parse(body.text, body.file), prune=body.prune)
        draft.plan()  # refuses where numbers run out
        return changes

    return _applied(await agent.read(compare))


@at("GET", "/v1/export", media_types=("application/toml", "application/json"))
async def export_desired(agent: Agent, *, form: Literal["toml", "json"] = "toml") -> Desired | Text:
    """The desired state as a document that `apply` takes."""
    contents = export(agent.switch.state)
    if form == "json":
        return await agent.read(partial(desired.to_tables, contents))
    return Text(await agent.read(partial(desired.to_toml, contents)), "application/toml")


def _applied(changes: list[Change]) -> Applied:
    return Applied(
        changes=[ChangeView(action=c.action, kind=c.kind, name=c.name, what=list(c.what)) for c in changes],
    )


# --- about the API -------------------------------------------------------------------------------


@at("GET", "/openapi.json")
async def schema(agent: Agent) -> Text:
    """This API's schema (OpenAPI 3.1)."""
    return Text(msgspec.json.encode(openapi(OPERATIONS, VERSION)), "application/json")

"""The agent itself: `vxagent up`, `stop`, `down`, `reload`, `status`, `doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vxagent.errors import HostError, NoAgent
from vxagent_cli.command import AsJson, agent, run_dir, say, show_json, show_list
from vxagent_cli.render import Object, duration, one_line, sheet


def up(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="F", help="Its settings; default: /etc/vxagent/vxagent.toml.")
    ] = None,
    netns: Annotated[
        str | None, typer.Option("--netns", metavar="N", help="Network namespace: a name under /run/netns or a path.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="D", help="Where desired state is kept; default: /var/lib/vxagent."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it forwards; its log is agent.log in the run dir.")
    ] = False,
) -> None:
    """Start the agent of this host."""
    from vxagent.main import Options, run, run_detached  # noqa: PLC0415  # heavy

    options = Options(run_dir=run_dir(ctx), config=config, netns=netns, state_dir=state_dir)
    if detach:
        print(f"vxagent runs, pid {run_detached(options)}")
    else:
        run(options)


def stop(ctx: typer.Context) -> None:
    """End the agent; forwarding goes on."""
    agent(ctx).end("stop")
    print("agent ended; forwarding goes on")


def down(ctx: typer.Context) -> None:
    """Take the whole switch off the devices; works without an agent too."""
    try:
        agent(ctx).end("down")
    except NoAgent:
        from vxagent.main import Options, down_without_agent  # noqa: PLC0415  # heavy

        down_without_agent(Options(run_dir=run_dir(ctx)))
    print("switch taken off; desired state is kept for the next `vxagent up`")


def reload(ctx: typer.Context) -> None:
    """Swap the programs and reread the config, under traffic."""
    say(agent(ctx).change("POST", "v1", "reload"), "reloaded")


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show how the agent is."""
    if as_json:
        show_list(ctx, (), "v1", "status", as_json=True)
        return
    found = agent(ctx).get("v1", "status")
    found["uptime_s"] = duration(found["uptime_s"])
    sheet((name.removesuffix("_s"), value) for name, value in found.items())


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whether this host can run the switch, and what to mend; works without an agent too."""
    found = _findings(ctx)
    if as_json:
        show_json(found)
    else:
        for finding in found:
            mend = f"; {finding['mend']}" if finding["mend"] else ""
            print(f"{finding['level']:<4}  {one_line(finding['what'] + mend)}")
    bad = sum(finding["level"] == "bad" for finding in found)
    if bad:
        raise HostError(f"bad findings: {bad}", "mend them as they say")


def _findings(ctx: typer.Context) -> list[Object]:
    try:
        return [finding for batch in agent(ctx).rows("v1", "doctor") for finding in batch]
    except NoAgent:
        from vxagent.main import doctor_without_agent  # noqa: PLC0415  # heavy

        return [{"level": f.level, "what": f.what, "mend": f.mend} for f in doctor_without_agent()]

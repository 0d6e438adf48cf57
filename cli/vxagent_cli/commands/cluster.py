"""`vxagent host …`, `vxagent binding …` and `vxagent migrate …`"""

from __future__ import annotations

from typing import Annotated

import typer

from vxagent_cli.command import AsJson, WrongUsage, agent, given, group, say, show_list
from vxagent_cli.render import column

hosts = group("The hosts of the cluster.")
bindings = group("Bindings: on which host each port of the cluster runs.")
migrate = group("Live migration of a port's VM from one host to another.")

HOST_COLUMNS = (
    column("host"),
    column("vtep"),
    column("live"),
    column("silent"),
    column("ports", number=True),
)
BINDING_COLUMNS = (
    column("port"),
    column("segments"),
    column("macs"),
    column("ips"),
    column("owner"),
    column("next"),
    column("phase"),
    column("epoch", number=True),
)
MIGRATION_COLUMNS = tuple(column(name) for name in ("port", "role", "owner", "next", "phase", "state"))

Port = Annotated[str, typer.Argument(metavar="PORT", help="The port's id.")]
DeadHost = Annotated[str, typer.Argument(metavar="HOST", help="The dead host's name.")]


@hosts.command("list")
def list_hosts(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the hosts, alive or not. A silent one does not answer this host, which floods nothing to it."""
    show_list(ctx, HOST_COLUMNS, "v1", "hosts", as_json=as_json)


@hosts.command("evacuate")
def evacuate(
    ctx: typer.Context,
    host: DeadHost,
    ifname: Annotated[
        list[str] | None,
        typer.Option(
            "--ifname", metavar="PORT=IFNAME", help="A port's device here, if not as there; may be given several times."
        ),
    ] = None,
) -> None:
    """Take the ports of a dead host here. That its VMs are dead too, its fencing has to see to."""
    body = {"ifnames": _ifnames(ifname)} if ifname else None
    answer = agent(ctx).change("POST", "v1", "hosts", host, "evacuate", body=body)
    for port in answer["ports"]:
        print(f"port {port} is here now")
    for port in answer["left"]:
        print(f"port {port} stays host {host}'s own, until `vxagent host forget {host}`")
    if not answer["ports"] and not answer["left"]:
        print(f"no port was bound on host {host}")


@hosts.command("forget")
def forget(ctx: typer.Context, host: DeadHost) -> None:
    """Have the cluster forget a dead host that is gone for good, with its VTEP, segments and internal ports."""
    answer = agent(ctx).change("POST", "v1", "hosts", host, "forget")
    for port in answer["ports"]:
        print(f"port {port}, host {host}'s own, is gone")
    print(f"host {host} is forgotten")


@bindings.command("list")
def list_bindings(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the bindings of the whole cluster."""
    show_list(ctx, BINDING_COLUMNS, "v1", "bindings", as_json=as_json)


@migrate.command("prepare")
def prepare(
    ctx: typer.Context,
    port: Port,
    ifname: Annotated[
        str | None, typer.Option("--ifname", metavar="IFNAME", help="Its VM's device here; may come later.")
    ] = None,
) -> None:
    """On the host that the VM is to come to: have the port wait there."""
    answer = agent(ctx).change("POST", "v1", "migrations", port, "prepare", body=given(ifname=ifname))
    say(answer, f"port {port} waits here")


@migrate.command("switchover")
def switchover(ctx: typer.Context, port: Port) -> None:
    """On the host that the VM leaves, when it stops: send its frames after it."""
    answer = agent(ctx).change("POST", "v1", "migrations", port, "switchover")
    print(f"port {port} goes to host {answer['next']}")
    if answer["missing"]:
        print(f"not heard of yet: {', '.join(answer['missing'])}; what they send is sent on from here")


@migrate.command("activate")
def activate(ctx: typer.Context, port: Port) -> None:
    """On the host that the VM has come to: it runs here now."""
    say(agent(ctx).change("POST", "v1", "migrations", port, "activate"), f"port {port} runs here")


@migrate.command("cancel")
def cancel(ctx: typer.Context, port: Port) -> None:
    """On either host, before it is activated: the VM stays where it is."""
    say(agent(ctx).change("POST", "v1", "migrations", port, "cancel"), f"port {port} stays")


@migrate.command("status")
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the ports of this host that are on their way."""
    show_list(ctx, MIGRATION_COLUMNS, "v1", "migrations", as_json=as_json)


def _ifnames(given: list[str]) -> dict[str, str]:
    """Port → device. Raises WrongUsage."""
    found: dict[str, str] = {}
    for text in given:
        port, _, ifname = text.partition("=")
        if not port or not ifname:
            raise WrongUsage(f"--ifname {text}: must be PORT=IFNAME such as vm7=vnet3")
        if port in found:
            raise WrongUsage(f"--ifname names port {port} twice")
        found[port] = ifname
    return found

"""`vxagent`: the commands put together, and what becomes of their errors.

Whatever goes wrong ends in one line on stderr and an exit code: 1 refused or failed, 2 wrong usage, 3 no agent.
Nothing heavy is imported here or in a command's module: a call takes a quarter of a second at most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from vxagent.errors import VxagentError
from vxagent_cli.command import group
from vxagent_cli.commands import bench, cluster, desired, fdb, host, ports, segments, uplinks, vteps
from vxagent_cli.render import one_line

DEFAULT_RUN_DIR = Path("/run/vxagent")
INTERRUPTED = 130  # 128 + SIGINT, as shells count

app = group("The virtual switch of a hypervisor host.")
app.command("up")(host.up)
app.command("stop")(host.stop)
app.command("down")(host.down)
app.command("reload")(host.reload)
app.command("status")(host.status)
app.command("doctor")(host.doctor)
app.add_typer(segments.app, name="segment")
app.add_typer(ports.app, name="port")
app.add_typer(uplinks.app, name="uplink")
app.add_typer(vteps.app, name="vtep")
app.add_typer(fdb.app, name="fdb")
app.add_typer(cluster.hosts, name="host")
app.add_typer(cluster.bindings, name="binding")
app.add_typer(cluster.migrate, name="migrate")
app.command("drops")(fdb.drops)
app.command("apply")(desired.apply)
app.command("diff")(desired.diff)
app.command("export")(desired.export)
app.command("bench")(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # slow, and nobody else needs it

        print(f"vxagent {version('vxagent')}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    run_dir: Annotated[
        Path,
        typer.Option("--run-dir", metavar="DIR", envvar="VXAGENT_RUN_DIR", help="Names the agent to talk to."),
    ] = DEFAULT_RUN_DIR,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end.")
    ] = False,
) -> None:
    """The virtual switch of a hypervisor host."""
    ctx.obj = run_dir


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        result = get_command(app).main(list(arguments), prog_name="vxagent", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except VxagentError as exc:
        return _fail(str(exc), exc.exit_code)
    except typer.TyperException as exc:
        return _fail(f"{_plain(exc.format_message())}{_help_hint(exc)}", exc.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing to flush at exit
        return 1
    except OSError as exc:
        return _fail(exc.strerror or str(exc), 1)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def _fail(message: str, code: int) -> int:
    print(f"vxagent: {one_line(message)}", file=sys.stderr)
    return code


def _plain(message: str) -> str:
    """Typer's sentence without what its own libraries put around it."""
    return message.strip().removesuffix(".").replace("Value error, ", "")


def _help_hint(exc: typer.TyperException) -> str:
    if getattr(exc, "option_name", "") == "--run-dir":
        return "; it goes before the command: `vxagent --run-dir DIR COMMAND`"
    context = getattr(exc, "ctx", None)
    return f"; see `{context.command_path} --help`" if context is not None else ""

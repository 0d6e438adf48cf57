"""What demos have in common: they tell whether all was as expected, and leave nothing behind."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vxagent.lab.agent import VXAGENT
from vxagent.lab.namespaces import DIRECTORY, CommandFailed
from vxagent.lab.ping import ping
from vxagent.lab.report import Report
from vxagent.lab.signals import Stopped
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

AMOUNT = 8 << 20  # bytes of TCP that show that a path carries bulk


def perform(play: Callable[[Report, World], None], *, needs: Iterable[str] = ()) -> int:
    """Play in a world of its own, and take that away.

    Args:
        needs: files, besides the command line, without which it cannot begin.

    Returns:
        The exit code: 0, or 1 when something was not as expected, or 128 + the signal that ended it.
    """
    if os.geteuid() != 0:
        print("The demo makes network namespaces and loads programs: run it as root, with sudo", file=sys.stderr)
        return 1
    for file in (VXAGENT, *needs):
        if not Path(file).exists():
            print(f"{file} is not there: run `make setup` first", file=sys.stderr)
            return 1
    report = Report()
    world = World()
    report.heading(f"vxagent on Linux {platform.release()}, {os.cpu_count()} CPUs")
    code = 0
    try:
        with world:
            play(report, world)
    except Stopped as exc:
        code = 128 + exc.number
        report.heading(f"Interrupted ({exc})")
    except (CommandFailed, TimeoutError) as exc:
        report.finding(False, str(exc))
    report.heading("Cleaned up")
    left = wait_for_nothing(world)
    report.finding(not left, "\n".join(left) or "no namespace, mount, directory or process is left")
    if not code:
        report.end()
    return code or min(report.failed, 1)


def remains(world: World) -> list[str]:
    """What is left of a world that has ended: namespaces, directories, mounts, processes."""
    found = [str(path) for where in (DIRECTORY, tempfile.gettempdir()) for path in Path(where).glob(f"{world.name}-*")]
    found += [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if world.name in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes()
        except OSError:  # it has just ended
            continue
        if world.name.encode() in words and process.parent.name != str(os.getpid()):
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_for_nothing(world: World) -> list[str]:
    """What remains after a moment of grace for processes that are just ending."""
    try:
        wait_until(lambda: not remains(world), within=2)
    except TimeoutError:
        return remains(world)
    return []


@contextmanager
def listening(ones: Iterable[Endpoint]) -> Iterator[list[Sniffer]]:
    """To all that arrives at them."""
    with ExitStack() as stack:
        yield [stack.enter_context(Sniffer(one.namespace, NIC)) for one in ones]


def reached(one: Endpoint, two: Endpoint, what: str) -> tuple[bool, str]:
    """By ping and by bulk TCP, which breaks where ping does not."""
    pings = ping(one.namespace, two.address)
    transfer = bulk_tcp(one.namespace, two.namespace, two.address, amount=AMOUNT, within=3)
    good = not pings.lost and transfer.received == AMOUNT
    received = f"{transfer.received >> 20} of {AMOUNT >> 20} MiB by TCP"
    return good, f"{what:<26} {pings.received}/{pings.sent} pings of {two.address} answered, {received}"

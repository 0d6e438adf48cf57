"""A place for one data path: pins, cache and a network namespace with veth pairs, for one test.

    tester ── a1 ═══ a0 ── switch's program
           ── b1 ═══ b0

Both ends lie in the same namespace; frames are sent into the right one and arrive at the left one.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vxagent.core.effects import Attach, Detach, PutRow
from vxagent.core.tables import DeviceRow, PortFlag, PortMode, PortRow, Row, Table
from vxagent.datapath import maps
from vxagent.datapath.attachments import Clsact
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.pins import Pins, SetPins
from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World

FRAME = bytes.fromhex("ffffffffffff 020000000001 0800") + bytes(46)

SIZES = maps.Sizes(ports=64, segments=64, memberships=256, fdb=1024, counters=64, drops=64, events=4096)


class Place:
    """Where a data path lives. Close it.

    Attributes:
        pins: the names of the kernel's objects.
        namespace: the one with the devices; the calling thread is in it from the beginning to the end.
        ifindex: device → number.
    """

    def __init__(self, world: World, cache: Path, devices: tuple[str, ...] = ("a", "b")) -> None:
        self.root = world.directory() / "bpf"
        self.cache = cache
        self.pins = Pins(self.root)
        self.namespace: Namespace = world.namespace("switch")
        self.ifindex: dict[str, int] = {}
        self._stack = ExitStack()
        self._stack.enter_context(self.namespace.entered())
        for name in devices:
            self.plug(name)

    def close(self) -> None:
        """Close every data path, unmount, leave the namespace."""
        try:
            BpfDatapath(self.root, self.cache).destroy()
        finally:
            self._stack.close()

    def plug(self, name: str) -> None:
        """A veth pair `<name>0`, `<name>1`, both up."""
        self.namespace.ip("link", "add", f"{name}0", "type", "veth", "peer", "name", f"{name}1")
        for end in (f"{name}0", f"{name}1"):
            self.namespace.ip("link", "set", end, "up")
            self.ifindex[end] = socket.if_nametoindex(end)

    @property
    def tables(self) -> SetPins:
        """The pins of the tables that programs go by."""
        return self.pins.sets()[-1]

    def unplug(self, name: str) -> None:
        """The pair vanishes."""
        self.namespace.ip("link", "delete", f"{name}0")

    def datapath(self, *, sizes: maps.Sizes = SIZES, clsact: Clsact | None = None) -> BpfDatapath:
        """A data path of this place, not open yet; with `clsact` it uses that. Closed with the place."""
        made = BpfDatapath(self.root, self.cache, sizes=sizes, clsact=clsact, force_clsact=clsact is not None)
        self._stack.callback(made.close)
        return made

    def opened(self, *, sizes: maps.Sizes = SIZES, clsact: Clsact | None = None) -> BpfDatapath:
        """The same, open."""
        made = self.datapath(sizes=sizes, clsact=clsact)
        made.open()
        return made

    def map(self, name: str) -> Map:
        """One of the pinned maps, beside the data path."""
        found = Map.open(self.tables.map(name), maps.declare(SIZES)[name])
        assert found is not None
        self._stack.callback(found.close)
        return found

    def port(self, handle: int, device: str) -> list[PutRow]:
        """What puts a port without a segment there: each of its frames is dropped as vlan_denied."""
        ifindex = self.ifindex[device]
        row: dict[tuple[Table, int], Row] = {
            (Table.PORTS, handle): PortRow(
                ifindex=ifindex,
                flags=PortFlag(0),
                state=PortMode.UP,
                handle=handle,
                segment=0,
                counter=0,
                counter_none=handle,
                max_macs=0,
            ),
            (Table.DEVICES, ifindex): DeviceRow(ifindex=ifindex, port=handle),
        }
        return [PutRow(table=table, key=key, row=value) for (table, key), value in row.items()]

    def attach(self, handle: int, device: str) -> Attach:
        """The effect that runs the program on a device."""
        return Attach(handle=handle, ifindex=self.ifindex[device], ifname=device)

    def detach(self, handle: int, device: str) -> Detach:
        """The effect that takes it off."""
        return Detach(handle=handle, ifindex=self.ifindex[device], ifname=device)

    def join(self, datapath: BpfDatapath, handle: int, device: str) -> None:
        """Make a port of a device and run the program on it."""
        for effect in self.port(handle, device):
            datapath.put(effect)
        datapath.attach(self.attach(handle, device))

    def send(self, device: str, count: int = 1) -> None:
        """Send frames that arrive at `device`, from the other end of its pair."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device.replace("0", "1"), 0))
            for _ in range(count):
                sender.send(FRAME)

    def lost_before(self, device: str) -> int:
        """Frames for `device` that a busy machine dropped before any program saw them (a full backlog)."""
        (sender,) = json.loads(self.namespace.ip("-json", "-stats", "link", "show", device.replace("0", "1")))
        return int(sender["stats64"]["tx"]["dropped"])

    def python(self, code: str, *before: str) -> subprocess.CompletedProcess[str]:
        """Run Python in a child, in the namespace, behind the words in `before`; it has `root` and `cache`."""
        prelude = f"from pathlib import Path\nroot, cache = Path({str(self.root)!r}), Path({str(self.cache)!r})\n"
        return subprocess.run(
            [*before, sys.executable, "-c", prelude + code],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def listing(self) -> set[str]:
        """The names of all pins, relative to the root."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


@contextmanager
def a_place(cache: Path) -> Iterator[Place]:
    """A place with bytecode from `cache`, closed in the end."""
    with World() as world:
        made = Place(world, cache)
        try:
            yield made
        finally:
            made.close()

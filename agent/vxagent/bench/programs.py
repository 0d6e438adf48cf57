"""The BPF programs of `c/bpf.c`: loaded, given their maps, and put at hooks."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from vxagent.datapath import bpf, maps, source
from vxagent.datapath.bpf_link import Link, has_tcx
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType, relocate
from vxagent.lab.namespaces import Namespace
from vxagent.netlink import clsact
from vxagent.netlink.wire import Requests

SOURCE = Path(__file__).parent / "c" / "bpf.c"
VID = 10  # that bench_tag puts on

COUNT, WITNESS = "bench_count", "bench_witness"
REDIRECT, REDIRECT_PEER, CLONE = "bench_redirect", "bench_redirect_peer", "bench_clone"
TAG, UNTAG = "bench_tag", "bench_untag"
WRAP, UNWRAP, UNWRAP_PEER = "bench_wrap", "bench_unwrap", "bench_unwrap_peer"
XDP, NIC = "bench_xdp", "bench_nic"

_TC = (COUNT, WITNESS, REDIRECT, REDIRECT_PEER, CLONE, TAG, UNTAG, WRAP, UNWRAP, UNWRAP_PEER)
_MAPS = ("counts", "to", "devmap", "head", "own", "outside")
_TARGETS = 64  # MEMBERS in bpf.c
_HEAD = 24  # HEAD in bpf.c
_OUTSIDE = struct.Struct("2x50s")  # struct outside in bpf.c, up to `inside`
_KEY = struct.Struct("=I")


class Counter:
    """A program at a receiver, and how many frames it has taken."""

    def __init__(self, counts: Map) -> None:
        self._counts = counts

    def read(self) -> int:
        """All so far, on all CPUs."""
        return sum(
            sum(struct.unpack(f"={len(batch.value(at)) // 8}Q", batch.value(at)))
            for batch in self._counts.batches()
            for at in range(batch.count)
        )


class Nic:
    """A device that stands in for a NIC whose driver can do XDP: its frames come from here, not from its driver."""

    def __init__(self, namespace: Namespace, ifname: str, program: Program, head: Map, own: Map) -> None:
        self._namespace = namespace
        self._ifname = ifname
        self._program = program
        self._head = head
        self._own = own
        self._ifindex = 0

    def prepare(self, frame: bytes) -> None:
        """Before frames: what they begin with, and the program at the device's XDP hook, if there is one."""
        (shown,) = json.loads(self._namespace.ip("-j", "-d", "link", "show", "dev", self._ifname))
        self._ifindex = shown["ifindex"]
        self._head.update(_KEY.pack(0), frame[:_HEAD])
        attached = shown.get("xdp", {}).get("prog", {}).get("id")
        if attached is None:
            self._own.delete(_KEY.pack(0))
        else:
            with Program.open(attached, ProgSpec(name=XDP, type=ProgType.XDP)) as program:
                self._own.update(_KEY.pack(0), _KEY.pack(program.fd))

    def receive(self, frame: bytes, count: int) -> None:
        """Take so many frames; the caller is in the device's namespace. Raises BpfError."""
        self._program.run_live(frame, self._ifindex, count)


class Programs:
    """Compiled once. What is loaded and attached stays until `cleanup` closes.

    Args:
        directory: for the bytecode.
        cleanup: holds the descriptors.

    Raises:
        HostError: python3-bpfcc is missing, or the kernel refuses.
    """

    def __init__(self, directory: Path, cleanup: ExitStack) -> None:
        wanted = source.Source.of(SOURCE, (*_TC, XDP, NIC), map_names=_MAPS)
        self._code = source.load(directory, wanted).programs
        self._numbers = maps.sentinels(_MAPS)
        self._cleanup = cleanup
        self._nics: dict[tuple[str, str], Nic] = {}
        self._hook = AttachType.TCX_INGRESS if has_tcx() else AttachType.NONE

    def count(self, namespace: Namespace, ifnames: Iterable[str], name: str = COUNT) -> Counter:
        """Count at the ingress of these devices together."""
        counts = self._map("counts", MapType.PERCPU_ARRAY, 8, 1)
        program = self._load(name, counts=counts)
        with namespace.entered(), Requests() as requests:
            for ifindex in _indexes(namespace, ifnames):
                clsact.attach(requests, ifindex, program.fd)
        return Counter(counts)

    def redirect(self, namespace: Namespace, ifname: str, targets: Iterable[str], name: str = REDIRECT) -> None:
        """Send all that comes in at a device to these devices of the same namespace."""
        self._attach(namespace, ifname, self._load(name, to=self._targets(namespace, targets)))

    def wrap(self, namespace: Namespace, ifname: str, target: str, outside: bytes) -> None:
        """Send all IP that comes in at a device to another one, in packets that begin with `outside`."""
        begin = self._map("outside", MapType.ARRAY, _OUTSIDE.size, 1)
        begin.update(_KEY.pack(0), _OUTSIDE.pack(outside))
        program = self._load(WRAP, to=self._targets(namespace, [target]), outside=begin)
        self._attach(namespace, ifname, program)

    def _targets(self, namespace: Namespace, ifnames: Iterable[str]) -> Map:
        to = self._map("to", MapType.ARRAY, 4, _TARGETS)
        for at, target in enumerate(_indexes(namespace, ifnames)):
            to.update(_KEY.pack(at), _KEY.pack(target))
        return to

    def _attach(self, namespace: Namespace, ifname: str, program: Program) -> None:
        (ifindex,) = _indexes(namespace, [ifname])
        with namespace.entered():
            if self._hook is AttachType.TCX_INGRESS:
                self._cleanup.enter_context(Link.create(program, self._hook, ifindex, ifname))
            else:
                with Requests() as requests:
                    clsact.attach(requests, ifindex, program.fd)

    def redirect_at_xdp(self, namespace: Namespace, ifname: str, target: str) -> None:
        """The same at native XDP, to one device."""
        devmap = self._map("devmap", MapType.DEVMAP, 4, 1)
        program = self._load(XDP, devmap=devmap)
        ifindex, to = _indexes(namespace, [ifname, target])
        with namespace.entered():  # a devmap takes devices of the caller's namespace only
            devmap.update(_KEY.pack(0), _KEY.pack(to))
            self._cleanup.enter_context(Link.create(program, AttachType.XDP, ifindex, ifname))

    def nic(self, namespace: Namespace, ifname: str) -> Nic:
        """A device that stands in for a NIC with native XDP."""
        key = (namespace.name, ifname)
        if key not in self._nics:
            head = self._map("head", MapType.ARRAY, _HEAD, 1)
            own = self._map("own", MapType.PROG_ARRAY, 4, 1)
            program = self._load(NIC, head=head, own=own)
            self._keep_in_dispatcher(program, namespace, f"{ifname}-x")
            self._nics[key] = Nic(namespace, ifname, program, head, own)
        return self._nics[key]

    def _keep_in_dispatcher(self, program: Program, namespace: Namespace, ifname: str) -> None:
        """Put an XDP program at a device that nobody uses. The kernel has a direct jump to each program that is at a
        device, and makes one for a test run, too, for which it waits some 30 ms before and after each."""
        namespace.ip("link", "add", ifname, "type", "veth", "peer", "name", f"{ifname}p")
        (ifindex,) = _indexes(namespace, [ifname])
        with namespace.entered():
            self._cleanup.enter_context(Link.create(program, AttachType.XDP, ifindex, ifname))

    def _map(self, name: str, kind: MapType, value_size: int, entries: int) -> Map:
        spec = MapSpec(name=name, type=kind, key_size=_KEY.size, value_size=value_size, max_entries=entries)
        return self._cleanup.enter_context(Map.create(spec))

    def _load(self, name: str, **named: Map) -> Program:
        fds = {self._numbers[of]: found.fd for of, found in named.items()}
        kind, attach = (ProgType.SCHED_CLS, AttachType.NONE) if name in _TC else (ProgType.XDP, AttachType.XDP)
        spec = ProgSpec(name=name[: bpf.NAME_MAX], type=kind, attach_type=attach)
        return self._cleanup.enter_context(Program.load(spec, relocate(self._code[name], fds)))


def _indexes(namespace: Namespace, ifnames: Iterable[str]) -> list[int]:
    with namespace.entered():
        return [socket.if_nametoindex(name) for name in ifnames]

"""All that there is of a switch: in its maps, at its devices, in its pins and mounts, in its database.

Two pictures are alike where two switches are: numbers of the kernel's (of devices, programs, generations) and times are
replaced by what they stand for. Of a counter they say whether it has counted anything.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from support import tcx
from support.kernel_objects import pinned_below
from support.lan import Lan
from vxagent.datapath import abi, bpf, codec, maps
from vxagent.datapath.bpf import Command
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map, MapType
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType
from vxagent.datapath.pins import Pins
from vxagent.netlink.offloads import read_offloads

Picture = dict[str, dict[str, Any]]

_COUNTERS = {"traffic", "drops", "learning", "leases_refused"}
_LEFT_OUT = {"audience", "buckets", "flows", "hops", "epochs", "events", "telling", "moves", "forgotten"}
"""What is of the moment, says when, or counts what `learning` counts already."""

_FAR_END = "vxi-"
"""Begins the name of the switch's end of an internal port; its MAC, which nobody sees, is another one each time."""

_PROG_INFO_MAPS = struct.Struct("=II8sIIQQQIIQ16s")  # … created_by_uid, nr_map_ids, map_ids, name of bpf_prog_info
_NEXT_PROGRAM = 11  # BPF_PROG_GET_NEXT_ID
_NEXT = struct.Struct("=II")


def picture(lan: Lan) -> Picture:
    """What there is now. Nothing must be on its way."""
    with lan.switch.entered():
        links = {row["ifname"]: row for row in json.loads(lan.switch.ip("-json", "-details", "link", "show"))}
        names = {row["ifindex"]: ifname for ifname, row in links.items()}
        pins = lan.agent.run_dir / "bpf"
        in_use = _in_use(pins)
        ours = dict(_programs(in_use))
        return {
            "devices": {ifname: _device(lan, row) for ifname, row in links.items()},
            "maps": dict(_maps(in_use, names)),
            "links": dict(_links(pins, names, ours)),
            "pins": Counter(_pin(path, in_use).relative_to(pins) for path in pins.rglob("*")) if pins.is_dir() else {},
            "mounts": Counter(_mounts(lan.agent.run_dir)),
            "files": Counter(
                path.name for path in lan.agent.run_dir.iterdir() if path.name not in ("bpf", "agent.log")
            ),
            "programs": dict(Counter(ours.values())),
            "saved": _saved(lan.agent.state_dir / "vxagent.db", names),
        }


def differences(one: Picture, other: Picture) -> list[str]:
    """Where they differ, a line each."""
    return [
        f"{part} {key}: {one[part].get(key)} instead of {other[part].get(key)}"
        for part in other
        for key in sorted(one[part].keys() | other[part].keys(), key=str)
        if one[part].get(key) != other[part].get(key)
    ]


def _in_use(pins: Path) -> Path:
    """Where the tables are that programs go by: those of the newest set that is live (see `datapath.pins`)."""
    sets = Pins(pins).sets() if pins.is_dir() else []
    return sets[-1].directory if sets else pins / f"v{abi.LAYOUT}"


def _device(lan: Lan, row: dict[str, Any]) -> dict[str, Any]:
    """How it is set, and what runs on it."""
    ifname = row["ifname"]
    with open(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6") as off:
        ipv6 = off.read().strip() == "0"
    shown = {flag: flag in row["flags"] for flag in ("UP", "NOARP", "PROMISC")}
    filters = lan.switch.run("tc", "-json", "filter", "show", "dev", ifname, "ingress", check=False).stdout
    return {
        **shown,
        "ipv6": ipv6,
        "asked for": row.get("promiscuity", 0),
        "mac": "any" if ifname.startswith(_FAR_END) else row["address"],
        "mtu": row["mtu"],
        "txqueuelen": row["txqlen"],
        "qdisc": lan.switch.run("tc", "qdisc", "show", "dev", ifname, "clsact").stdout.count("clsact"),
        "filters": filters.count('"vxagent"'),
        "tcx": len(tcx.program_ids(row["ifindex"])),
        "tcx out": len(tcx.program_ids(row["ifindex"], AttachType.TCX_EGRESS)),
        "xdp": row.get("xdp", {}).get("mode", 0),
        "rxvlan": read_offloads(ifname).rxvlan,
    }


def _maps(directory: Path, names: dict[int, str]) -> Iterator[tuple[str, Any]]:
    """ "NAME KEY" → value, of everything that is not all zeroes; "NAME" → how many entries there is room for."""
    for name, spec in maps.declare(maps.DEFAULT_SIZES).items():
        if name in _LEFT_OUT:
            continue
        opened = Map.open(directory / name, spec, adopt=True)
        if opened is None:
            continue
        with opened:
            yield name, opened.spec.max_entries
            for key, value in _elements(opened):
                if any(value):
                    yield f"{name} {_key(name, key, names)}", _value(name, value, names)


def _elements(opened: Map) -> Iterator[tuple[bytes, bytes]]:
    if opened.spec.type is MapType.DEVMAP:  # is not read in batches
        for handle in range(64):
            if (value := opened.lookup(codec.U32.pack(handle))) is not None:
                yield codec.U32.pack(handle), value
        return
    size = opened.spec.key_size
    for batch in opened.batches():
        for at in range(batch.count):
            yield bytes(batch.keys[at * size : (at + 1) * size]), bytes(batch.value(at))


def _key(name: str, key: bytes, names: dict[int, str]) -> str:
    if name == "devices":
        return names.get(codec.U32.unpack(key)[0], "?")
    return key.hex()


def _value(name: str, value: bytes, names: dict[int, str]) -> Any:
    if name in _COUNTERS:
        return "counted"
    if name in _READ:
        layout, forgotten = _READ[name]
        row = layout.unpack(value)
        if "ifindex" in row:
            row["ifindex"] = names.get(row["ifindex"], "?") if row["ifindex"] else 0
        return {member: number for member, number in row.items() if member not in forgotten}
    if name == "xdp_devices":
        return names.get(codec.U32.unpack(value)[0], "?")
    if name in ("listening", "queriers"):
        return "begun"
    return value.hex()


_READ: dict[str, tuple[abi.Layout, tuple[str, ...]]] = {
    "ports": (abi.PORT, ()),
    "devices": (abi.DEVICE, ()),
    "fdb": (abi.FDB_ENTRY, ("seen_ns",)),
    "neighbours": (abi.NEIGHBOUR, ("expires_ns",)),
    "groups": (abi.GROUP, ("since_ns", "expires_ns")),
}
"""Map → its rows, and the members that are times."""


def _links(pins: Path, names: dict[int, str], ours: dict[int, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """ "KIND HANDLE" → device and program."""
    for kind in ("links", "out", "xdp"):
        for pin in sorted((pins / kind).glob("*")):
            link = Link.open(pin)
            if link is not None:
                with link:
                    ifindex, program = link.where()
                yield f"{kind} {pin.name}", (names.get(ifindex, "nowhere"), ours.get(program, "another"))


def _pin(path: Path, in_use: Path) -> Path:
    """The pin, under a name that it has whichever agent made it."""
    if path == in_use or in_use in path.parents:
        path = in_use.with_name("in use") / path.relative_to(in_use)
    return path.with_name("progs") if path.name.startswith(f"{maps.PROGS}-") else path


def _mounts(run_dir: Path) -> list[str]:
    points = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [point.removeprefix(str(run_dir)) for point in points if point.startswith(f"{run_dir}/")]


def _programs(directory: Path) -> Iterator[tuple[int, str]]:
    """Number and name of all programs, wherever they are held, that use maps of these pins; of those that use another
    one as well, which has gone or is still there of before, the name says so."""
    ours = pinned_below(directory).maps
    for number in _numbers():
        try:
            opened = Program.open(number, ProgSpec(name="some", type=ProgType.SCHED_CLS))
        except bpf.BpfError:
            continue  # gone meanwhile
        with opened:
            name, used = _name_and_maps(opened)
        if not ours.isdisjoint(used):
            yield number, name if ours.issuperset(used) else f"{name}, by other maps"


def _numbers() -> Iterator[int]:
    """The kernel's numbers of all programs."""
    request = bpf.attr(_NEXT.pack(0, 0))
    while bpf.call(_NEXT_PROGRAM, request) >= 0:  # type: ignore[arg-type]  # the switch does not need it
        number = _NEXT.unpack_from(request)[1]
        yield number
        request = bpf.attr(_NEXT.pack(number, 0))


def _name_and_maps(program: Program) -> tuple[str, tuple[int, ...]]:
    room = bytearray(64 * 4)
    raw = bytearray(_PROG_INFO_MAPS.size)
    _PROG_INFO_MAPS.pack_into(raw, 0, 0, 0, b"", 0, 0, 0, 0, 0, 0, 64, bpf.address(room), b"")
    asked = struct.Struct("=IIQ")
    request = bpf.attr(asked.pack(program.fd, len(raw), bpf.address(raw)))
    bpf.call_or_fail(Command.OBJ_GET_INFO_BY_FD, request, "read about a program")
    *_, count, _, name = _PROG_INFO_MAPS.unpack(raw)
    return name.rstrip(b"\0").decode(), struct.unpack_from(f"={count}I", room)


def _saved(file: Path, names: dict[int, str]) -> dict[str, Any]:
    """ "KIND NAME" → document."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT kind, name, body FROM document").fetchall()
    found = {f"{kind} {name}": json.loads(body) for kind, name, body in rows}
    for document in found.values():
        if "ifindex" in document:
            document["ifindex"] = names.get(document["ifindex"], "?")
    return found

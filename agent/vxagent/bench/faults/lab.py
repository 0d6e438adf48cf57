"""The switch under fault, the VMs that send through it, and what faults have in common.

     VM a    VM b      VM c    VM d       fabric       VM e         VM f      another host, VM g
      t1      t2        v1      v2    u0 (VLAN 12)      t3           t4       o0 (VNI 5012)
    ┌─┴───────┴─┐     ┌─┴───────┴─┐     ┌─┴─────────────┴─┐        ┌─┴─────────┴─┐
    │  red      │     │  green    │     │  blue           │        │  violet     │
    └───────────┘     └───────────┘     └─────────────────┘        └─────────────┘

Four tenants with a segment each, which drop unknown unicast: a frame whose receiver the switch has forgotten is lost
and not flooded. a and b have listed MACs, the others are learned. Taps are single-queue and have XDP in front of tc;
from a to b a second flow goes, of frames that XDP leaves to tc. Between the fabric and e a flow goes each way, and
between f and g. Taps stand in for the NICs of the uplink and of the underlay. There is a stack behind none of the
devices, and o0 has the address of the host's VTEP. A fifth tenant has what faults need for themselves: `spare` and
`many`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vxagent.bench.faults.stream import End, Stream, Streams
from vxagent.bench.faults.tunnel import Tunnel
from vxagent.bench.frames import hello
from vxagent.bench.traffic import Traffic
from vxagent.errors import HostError
from vxagent.lab.agent import Agent
from vxagent.lab.namespaces import CommandFailed, run
from vxagent.lab.pump import VNET_HDR
from vxagent.lab.tap import open_tap
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

RATE = 120_000  # frames in a second; some more than the 100,000 that are promised, for a machine that is busy
QUEUE = 131_072  # frames that a receiver's tap holds
STATE_BYTES = 24 << 20  # of the file system of the state directory
AGEING_S = 300
TTL = 64  # of what goes into tunnels
VID = 12
VNI = 5012
STREAMED = ("red", "green", "blue", "violet")  # the streams' segments
SEGMENTS = (*STREAMED, "grey")
PORTS = ("t1", "t2", "t3", "t4", "v1", "v2")
RECEIVERS = ("t2", "t3", "t4", "u0", "o0")  # taps
SPARE, MANY = "spare", "many"

GRACE_S = 60.0

A, B, C, D, E, F, G = ((f"02:00:00:00:00:{n:02x}", f"10.0.0.{n}") for n in range(1, 8))
FABRIC = ("02:00:00:00:00:09", "10.0.0.9")
NEAR, FAR = (("02:00:00:00:01:01", "192.0.2.1"), ("02:00:00:00:01:02", "192.0.2.2"))  # the VTEPs
TUNNEL = Tunnel(sender=FAR, receiver=NEAR, vni=VNI)


class Broken(HostError):
    """Something beside the frames is not as it should be: a refusal that is none, a command that does not work."""


class NotHere(HostError):
    """This machine cannot do what the fault takes."""


@dataclass(slots=True)
class Overflow:
    """Frames for which there was no room."""

    frames: int = 0


class FaultLab:
    """A switch through which streams go.

    Attributes:
        world, switch, agent: as their classes say.
        streams: through the switch.
        traffic: for senders beside them.
        fast: the ports and uplinks that have XDP on this machine, and have to keep it.
        other: the directory of another build's package `vxagent`.
        broken: likewise, of builds that do not work.
        said: the lines of refusals since it was last emptied.
    """

    def __init__(self, world: World, rate: int = RATE, other: Path | None = None, broken: Sequence[Path] = ()) -> None:
        self.world = world
        self.other = other
        self.broken = broken
        self.switch = world.namespace("sw")
        self.far = world.namespace("far")
        self.said: list[str] = []
        directory = world.directory()
        self.traffic = Traffic(directory)
        self._taps = {name: self._tap(name) for name in ("t1", "t2", "t3", "t4", "u0", "o0", MANY)}
        self._join_underlay()
        for name in ("v1", "v2", SPARE):
            self.veth(name)
        self.agent = Agent(world.directory(), self.switch, config=config(AGEING_S))
        self._small_state_dir()
        world.cleanup.callback(self.agent.end)
        self.agent.up()
        self._plug_in()
        self.fast = self.at_xdp()
        self.streams = Streams(directory, self.far, self._flows(), self._receivers(), rate)

    # The streams

    @contextmanager
    def overflow(self) -> Iterator[Overflow]:
        """Count the frames for which a receiver's tap has no room meanwhile; known at the end."""
        found = Overflow()
        before = self.dropped()
        yield found
        found.frames = self.dropped() - before

    def dropped(self) -> int:
        """Frames for which a receiver's tap had no room, ever."""
        shown = json.loads(self.switch.ip("-j", "-s", "link", "show"))
        return sum(one["stats64"]["tx"]["dropped"] for one in shown if one["ifname"] in RECEIVERS)

    # What faults do

    def veth(self, name: str) -> None:
        """A device that is up on both sides; the other end has the same name."""
        self.switch.ip(*f"link add {name} up type veth peer name {name} netns {self.far.name}".split())
        self.far.ip("link", "set", name, "up")
        self.far.wait_running(name)

    def announce(self, count: int) -> None:
        """Have the switch learn so many MACs behind `many`. Raises HostError."""
        fd = self._taps[MANY]
        data = hello("02:0f:00:00:00:00", "10.9.0.1").hex()
        self.traffic.send(self.switch, "announce", fd, count, data, seconds=GRACE_S, fds=[fd])

    def refused(self, *words: str) -> None:
        """Run a command that has to be refused, with one clear line.

        Raises:
            Broken: it was not, or not so.
        """
        self.check_refusal(self.agent.cli(*words, check=False))

    def check_refusal(self, done: subprocess.CompletedProcess[str]) -> None:
        """A command was refused, with 1 and one clear line, which is kept. Raises Broken."""
        said, command = done.stderr.rstrip("\n"), f"`vxagent {' '.join(done.args[3:])}`"
        if done.returncode == 0:
            raise Broken(f"{command} was not refused")
        if done.returncode != 1 or "\n" in said or not said.startswith("vxagent: ") or done.stdout:
            raise Broken(f"{command} ended with {done.returncode} and said {said or 'nothing'}")
        if "the agent failed" in said or "the connection to the agent" in said:
            raise Broken(f"{command} was not refused, it failed: {said}")
        self.said.append(said.removeprefix("vxagent: "))

    def works(self) -> None:
        """A port can be plugged in and out: database, maps, pins and links can be written.

        Raises:
            Broken: it cannot.
        """
        try:
            self.agent.cli("port", "attach", SPARE, "--segment", "grey")
            state = next(port["state"] for port in self.agent.json("port", "list") if port["id"] == SPARE)
            self.agent.cli("port", "detach", SPARE)
        except CommandFailed as exc:
            raise Broken(str(exc)) from exc
        if state != "up":
            raise Broken(f"port {SPARE} is {state} after `port attach`")

    def well(self) -> None:
        """The agent is there and has what it should have.

        Raises:
            Broken: it is not so.
        """
        try:
            status, ports = self.agent.json("status"), self.agent.json("port", "list")
        except CommandFailed as exc:
            raise Broken(str(exc)) from exc
        states = {port["id"]: port["state"] for port in ports}
        wanted = dict.fromkeys((*PORTS, MANY), "up")
        if not status["ready"] or states != wanted:
            raise Broken(f"afterwards ready is {status['ready']} and the ports are {states}")
        if status["overlay"]["state"] != "up":
            raise Broken(f"afterwards the overlay is {status['overlay']}")
        if slow := self.fast - self.at_xdp():
            raise Broken(f"afterwards XDP is gone from {', '.join(sorted(slow))}")

    def at_xdp(self) -> frozenset[str]:
        """Ports and uplinks where XDP runs, as the agent says and the kernel has it. Raises CommandFailed."""
        rows = [*self.agent.json("port", "list"), *self.agent.json("uplink", "list")]
        return frozenset(row["ifname"] for row in rows if row["hook"] == "xdp+tc") & self.xdp_programs().keys()

    def xdp_programs(self) -> dict[str, int]:
        """Device → the number of the program at its XDP hook."""
        shown = json.loads(self.switch.ip("-j", "-d", "link", "show"))
        return {one["ifname"]: one["xdp"]["prog"]["id"] for one in shown if "xdp" in one}

    def pins(self) -> frozenset[Path]:
        """What is pinned."""
        return frozenset((self.agent.run_dir / "bpf").rglob("*"))

    def revive(self) -> None:
        """Have an agent for the next fault, whatever the last one left. Raises CommandFailed."""
        if self.agent.cli("status", check=False).returncode != 0:
            self.agent.up()
        for port in self.agent.json("port", "list"):
            if port["id"] == SPARE:
                self.agent.cli("port", "detach", SPARE)

    # How it is made

    def _tap(self, name: str) -> int:
        fd = open_tap(self.switch, name)
        self.world.cleanup.callback(os.close, fd)
        self.switch.ip("link", "set", name, "txqueuelen", str(QUEUE), "up")
        return fd

    def _join_underlay(self) -> None:
        """Nobody answers ARP there."""
        self.switch.ip_batch(
            [
                f"link set o0 address {NEAR[0]}",
                f"address add {NEAR[1]}/24 dev o0",
                f"neighbour replace {FAR[1]} lladdr {FAR[0]} nud permanent dev o0",
            ]
        )

    def _small_state_dir(self) -> None:
        """On a file system of its own, which can be filled."""
        self.agent.state_dir.mkdir(mode=0o700)  # of the world, which unmounts what is mounted in its directories
        run("mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES},mode=0700", "vxagent", str(self.agent.state_dir))

    def _plug_in(self) -> None:
        cli = self.agent.cli
        for name in SEGMENTS:
            between = {"blue": ("--vlan", str(VID)), "violet": ("--vni", str(VNI))}.get(name, ())
            cli("segment", "add", name, "--tenant", name, *between, "--unknown-unicast", "drop")
        cli("uplink", "add", "u0")
        cli("vtep", "add", FAR[1], "--vni", str(VNI))
        cli("port", "attach", "t1", "--segment", "red", "--mac", A[0])
        cli("port", "attach", "t2", "--segment", "red", "--mac", B[0])
        for ifname, segment in (("v1", "green"), ("v2", "green"), ("t3", "blue"), ("t4", "violet")):
            cli("port", "attach", ifname, "--segment", segment)
        cli("port", "attach", MANY, "--segment", "grey", "--max-macs", str(1 << 20), "--learn-rate", "0")
        wait_until(lambda: all(port["state"] == "up" for port in self.agent.json("port", "list")), what="ports are up")

    def _flows(self) -> list[Stream]:
        red = Stream(name="tap → tap", sender=A, receiver=B, source=f"tap:{self._taps['t1']}")
        return [
            red,
            replace(red, name="tap → tap, by tc", options=True),
            Stream(name="veth → veth", sender=C, receiver=D, source="packet:v1"),
            Stream(name="uplink → tap", sender=FABRIC, receiver=E, vid=VID, source=f"tap:{self._taps['u0']}"),
            Stream(name="tap → uplink", sender=E, receiver=FABRIC, source=f"tap:{self._taps['t3']}"),
            Stream(name="tap → VTEP", sender=F, receiver=G, source=f"tap:{self._taps['t4']}"),
            Stream(name="VTEP → tap", sender=G, receiver=F, source=f"tap:{self._taps['o0']}", tunnel=TUNNEL),
        ]

    def _receivers(self) -> list[End]:
        def greeting(end: tuple[str, str], vid: int | None = None) -> bytes:
            return hello(*end, vid=vid)[VNET_HDR.size :]

        return [
            End(where=f"tap:{self._taps['t2']}", streams=(0, 1), hello=greeting(B)),
            End(where="packet:v2", streams=(2,), hello=greeting(D)),
            End(where=f"tap:{self._taps['t3']}", streams=(3,), hello=greeting(E)),
            End(where=f"tap:{self._taps['u0']}", streams=(4,), hello=greeting(FABRIC, VID), vid=VID),
            End(where=f"tap:{self._taps['o0']}", streams=(5,), hello=TUNNEL.packet(greeting(G))),
            End(where=f"tap:{self._taps['t4']}", streams=(6,), hello=greeting(F)),
        ]


def config(ageing_s: int, ttl: int = TTL) -> str:
    """The agent's vxagent.toml."""
    return f'ageing_s = {ageing_s}\n[overlay]\nvtep = "{NEAR[1]}"\ndevice = "o0"\nttl = {ttl}\n'

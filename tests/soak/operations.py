"""What a user can do, and what happens to a host, in an order that a seed decides.

No operation touches what the streams go through, so that none may cost a frame.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from soak.lab import DEVICES, UPLINK, SoakLab
from vxagent.bench.faults import ending, lacking, working
from vxagent.bench.faults.efforts import QUICK, Effort
from vxagent.bench.faults.lab import AGEING_S, MANY, NEAR, TTL, VNI, Broken, FaultLab, config
from vxagent_cli.client import AgentSaysNo

SHORT = replace(QUICK, away_s=0.3)
SEGMENTS = ("red", "green", "blue", "grey", "s0", "s1", "s2")
OWN = SEGMENTS[4:]
VNIS = dict(zip(OWN, (6000, 6001, 6002), strict=True))
VTEPS = ("192.0.2.10", "192.0.2.11")  # of hosts that are not there
TTLS = (TTL, 9)
HUNG_S = 0.3
FDB_ENTRIES = (1 << 16, 1 << 15)  # not the default: a set of tables that has taken over has a pin more (`live`)
REFUSED = (
    ("port", "attach", "t1", "--segment", "green"),
    ("port", "attach", "x0", "--segment", "nowhere"),
    ("port", "detach", "nobody"),
    ("port", "set", "nobody", "--isolated"),
    ("segment", "del", "red"),
    ("segment", "add", "red", "--tenant", "other"),
    ("segment", "add", "twelve", "--tenant", "other", "--vlan", "12"),
    ("uplink", "del", "nobody"),
    ("fdb", "del", "02:00:00:00:77:77", "--segment", "red"),
    ("fdb", "add", "02:00:00:00:77:77", "--segment", "red", "--port", "v1"),
    ("segment", "add", "five", "--tenant", "other", "--vni", str(VNI)),
    ("vtep", "set", "192.0.2.99", "--no-vni"),
    ("vtep", "add", NEAR[1]),
    ("vtep", "del", "192.0.2.99"),
    ("apply", "/nonexistent.toml"),
)
HALVES = (b"", b"GET /v1/po", b"POST /v1/ports HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", b"\0\0\0\0\r\n\r\n")
READERS = (
    ("status",), ("segment", "list"), ("port", "list"), ("port", "show", "t1"), ("uplink", "list"), ("fdb", "list"),
    ("vtep", "list"), ("drops",), ("drops", "--port", "t1"), ("export",),
)  # fmt: skip


class Operations:
    """Does them.

    Args:
        lab: to whom.
        seed: the same one gives the same operations.
        lacks: also take from the agent what it needs: room, descriptors, locks.

    Attributes:
        done: kind → how often; `refused` counts what the agent did not want.
    """

    def __init__(self, lab: SoakLab, seed: str, *, lacks: bool = True) -> None:
        self.done: Counter[str] = Counter()
        self._lab = lab
        self._lacks = lacks
        self._chance = random.Random(seed)
        self._deck: list[Callable[[], None]] = []

    def once(self) -> None:
        """Each kind once: restarts first, so that the agent has done all the others when this returns."""
        for kind in (*self._restarts(), *dict.fromkeys(self._kinds())):
            self._do(kind)
        self._deck.clear()

    def some(self, until: float, *, restarts: bool) -> None:
        """Go on until then, by the monotonic clock; `restarts`: the agent may also be killed and stopped.

        Raises:
            Broken, CommandFailed, HostError, OSError, TimeoutError: something does not work.
        """
        self._deck.clear()
        while time.monotonic() < until:
            if not self._deck:
                self._deck = [*self._kinds(), *(self._restarts() if restarts else ())]
                self._chance.shuffle(self._deck)
            self._do(self._deck.pop())

    def _do(self, kind: Callable[[], None]) -> None:
        try:
            kind()
        except AgentSaysNo:
            self.done["refused"] += 1
        else:
            self.done[kind.__name__] += 1
        self._lab.note()

    def _kinds(self) -> list[Callable[[], None]]:
        often = (
            *(self.attach, self.detach, self.set_port, self.read, self.static, self.segment, self.flush),
            *(self.vtep, self.static_vtep),
        )
        seldom = (
            *(self.trunk, self.internal, self.uplink, self.set_segment, self.apply, self.diff, self.refuse, self.hang),
            *(self.replug_device, self.learn, self.reload, self.resize, self.hang_up, self.neighbours),
        )
        lacks = (self.database_locked, self.disk_full, self.pins_read_only, self.no_descriptors)
        return [*often * 8, *seldom, *(lacks if self._lacks else ())]

    def _restarts(self) -> tuple[Callable[[], None], ...]:
        return (self.die, self.stop)

    # Ports

    def attach(self) -> None:
        """An access port, with locks and limits."""
        body = {"ifname": self._chance.choice(DEVICES), "segment": self._chance.choice(SEGMENTS), **self._options()}
        self._ask("POST", "ports", body=body)

    def detach(self) -> None:
        """One of the ports that operations may touch."""
        self._ask("DELETE", "ports", self._chance.choice((*DEVICES, "host0")))

    def set_port(self) -> None:
        """Locks, limits and segment."""
        body = self._options()
        if self._chance.random() < 0.3:
            body["segment"] = self._chance.choice(SEGMENTS)
        self._ask("PATCH", "ports", self._chance.choice(DEVICES), body=body)

    def trunk(self) -> None:
        """A trunk port of the tenant that has several segments."""
        body = {"ifname": self._chance.choice(DEVICES), "trunk": ["s0:20", "s1:21"], "native": "s2"}
        self._ask("POST", "ports", body=body)

    def internal(self) -> None:
        """The host itself as a port."""
        self._ask("POST", "ports", body={"internal": "host0", "segment": self._chance.choice(OWN)})

    def _options(self) -> dict[str, object]:
        number = self._chance.randint(0x20, 0x2F)
        mac, ip = f"02:00:00:00:01:{number:02x}", f"10.0.1.{number}"
        choices: tuple[dict[str, object], ...] = (
            {}, {"mac": [mac]}, {"ip": [ip, "2001:db8::/64"]}, {"mac": [mac], "ip": [ip]}, {"isolated": True},
            {"trusted": True}, {"max_macs": 1}, {"learn_rate": 1}, {"rate_in": "10Mbit", "rate_out": "1kpps"},
            {"storm_broadcast": 10, "storm_unknown": 10}, {"dhcp_snoop": True}, {"enforce": "shadow"},
        )  # fmt: skip
        return dict(self._chance.choice(choices))

    # Segments, uplinks, entries

    def segment(self) -> None:
        """One comes, or goes where nothing is in it."""
        name = self._chance.choice(OWN)
        vlan, vni = {"vlan": 30 + int(name[1:])}, {"vni": VNIS[name]}
        if self._chance.random() < 0.7:
            between = self._chance.choice((vlan, vni, vlan | vni))
            self._ask("POST", "segments", body={"name": name, "tenant": "own", **between})
        else:
            self._ask("DELETE", "segments", name)

    def set_segment(self) -> None:
        """What becomes of unknown unicast and multicast, and the MTU."""
        body = self._chance.choice(({"unknown_unicast": "drop"}, {"multicast_snooping": True}, {"mtu": 1400}))
        self._ask("PATCH", "segments", self._chance.choice(OWN), body=body)

    def uplink(self) -> None:
        """Another uplink comes or goes."""
        if self._chance.random() < 0.5:
            self._ask("POST", "uplinks", body={"ifname": UPLINK})
        else:
            self._ask("DELETE", "uplinks", UPLINK)

    def static(self) -> None:
        """A static entry comes or goes."""
        mac, segment = f"02:00:00:00:02:{self._chance.randrange(4):02x}", self._chance.choice(("grey", *OWN))
        if self._chance.random() < 0.6:
            port = MANY if segment == "grey" else self._chance.choice(DEVICES)
            self._ask("POST", "fdb", body={"segment": segment, "mac": mac, "port": port})
        else:
            self._ask("DELETE", "fdb", segment, mac)

    def vtep(self) -> None:
        """Another host's VTEP comes, has other VNIs, or goes."""
        address = self._chance.choice(VTEPS)
        vnis = self._chance.choice(([], [VNIS["s0"]], *[list(VNIS.values())] * 2))
        match self._chance.choice(("add", "add", "set", "del")):
            case "add":
                self._ask("POST", "vteps", body={"address": address, "vnis": vnis})
            case "set":
                self._ask("PATCH", "vteps", address, body={"vnis": vnis})
            case _:
                self._ask("DELETE", "vteps", address)

    def static_vtep(self) -> None:
        """A static entry behind one, whose segment and VTEP come before it unless they are there; it goes with them."""
        mac, name = f"02:00:00:00:03:{self._chance.randrange(4):02x}", self._chance.choice(OWN)
        address = self._chance.choice(VTEPS)
        with suppress(AgentSaysNo):
            self._ask("POST", "segments", body={"name": name, "tenant": "own", "vni": VNIS[name]})
        with suppress(AgentSaysNo):
            self._ask("POST", "vteps", body={"address": address, "vnis": list(VNIS.values())})
        self._ask("POST", "fdb", body={"segment": name, "mac": mac, "vtep": address})

    def flush(self) -> None:
        """What another segment or port has learned."""
        about = self._chance.choice(({"segment": "grey"}, {"segment": self._chance.choice(OWN)}, {"port": MANY}))
        self._ask("POST", "fdb", "flush", body=about)

    def learn(self) -> None:
        """Some hundred MACs are learned."""
        self._lab.announce(self._chance.choice((10, 500)))

    # Documents

    def apply(self) -> None:
        """What is there, and ports without devices besides; next time without, or all others go as well."""
        ports = self._chance.choice((0, 1, 100))
        more = "".join(f'[[port]]\nifname = "p{n}"\nsegment = "grey"\n' for n in range(ports))
        file = self._lab.agent.run_dir / "soak.toml"
        document = self._lab.canonical.read_text() if self._chance.random() < 0.3 else self._lab.exported()
        if ports and '"p0"' not in document:
            document += more
        file.write_text(document)
        self._lab.agent.cli("apply", str(file), "--prune")
        file.unlink()

    def diff(self) -> None:
        """Ask what an `apply` would change."""
        self._lab.agent.cli("diff", str(self._lab.canonical))

    # The agent

    def reload(self) -> None:
        """New programs, perhaps another ageing time, and another TTL of what goes into tunnels."""
        text = config(self._chance.choice((AGEING_S, 100)), self._chance.choice(TTLS))
        self._lab.agent.config_file.write_text(text)
        self._ask("POST", "reload")

    def resize(self) -> None:
        """Another FDB: tables take over from tables."""
        entries = self._chance.choice(FDB_ENTRIES)
        self._lab.agent.config_file.write_text(f"fdb_entries = {entries}\n{config(AGEING_S)}")
        self._ask("POST", "reload")

    def die(self) -> None:
        """kill -9, and the next agent."""
        self._fault(ending.kill_and_up)

    def stop(self) -> None:
        """`stop`, and the next agent."""
        self._fault(ending.stop_and_up)

    def hang(self) -> None:
        """SIGSTOP, for a moment."""
        pid = self._lab.agent.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(HUNG_S)
        finally:
            os.kill(pid, signal.SIGCONT)

    def database_locked(self) -> None:
        """Another process has it."""
        self._fault(lacking.database_locked)

    def disk_full(self) -> None:
        """Of the database; without the restart that a fault begins with."""
        with lacking.filled(self._lab.agent.state_dir):
            self._lab.agent.cli("segment", "add", "full", "--tenant", "own", check=False)
        self._lab.agent.cli("segment", "del", "full", check=False)
        self._lab.works()

    def pins_read_only(self) -> None:
        """The bpffs is."""
        self._fault(lacking.pins_read_only)

    def no_descriptors(self) -> None:
        """The agent may open no more files."""
        self._fault(lacking.no_descriptors)

    def neighbours(self) -> None:
        """Ports come into the streams' segments and go."""
        self._fault(working.neighbours)

    def _fault(self, strike: Callable[[FaultLab, Effort], None]) -> None:
        strike(self._lab, SHORT)

    # Others

    def read(self) -> None:
        """A reading command, for people or scripts."""
        self._lab.agent.cli(*self._chance.choice(READERS), *self._chance.choice(((), ("--json",))), check=False)
        self._ask("GET", "status")

    def refuse(self) -> None:
        """A command that must be refused."""
        self._lab.refused(*self._chance.choice(REFUSED))

    def hang_up(self) -> None:
        """Callers who ask half a question and go."""
        for said in (
            b"",
            b"GET /v1/po",
            b"POST /v1/ports HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
            b"\0\0\0\0\r\n\r\n",
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(self._lab.agent.run_dir / "api.sock"))
                caller.send(said)

    def replug_device(self) -> None:
        """A device goes, under its port if it has one, and comes again."""
        name = self._chance.choice((*DEVICES, UPLINK))
        self._lab.switch.ip("link", "del", name)
        self._lab.veth(name)

    def _ask(self, method: str, *path: str, body: Mapping[str, object] | None = None) -> None:
        try:
            if method == "GET":
                self._lab.client.get("v1", *path)
            else:
                self._lab.client.change(method, "v1", *path, body=None if body is None else dict(body))
        except AgentSaysNo as exc:
            if "the agent failed" in str(exc):
                raise Broken(f"{method} {'/'.join(path)}: {exc}") from exc
            raise

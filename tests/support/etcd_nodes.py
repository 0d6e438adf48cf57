"""Members of etcd on loopback, for a test: on free ports, with their data in its directory, ended by their pids."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.certificates import Authority
from vxagent.lab.etcd import binary, environment
from vxagent.lab.waiting import wait_until
from vxagent.store.engine import Credentials

HEARTBEAT_MS, ELECTION_MS = 50, 500  # half of etcd's own: a leader is elected within a second
START_S = 20.0


@dataclass
class Node:
    """One member.

    Attributes:
        words: how etcd is called.
        url: for clients.
        health: where it says, without TLS, whether it can serve.
    """

    name: str
    directory: Path
    words: tuple[str, ...]
    url: str
    peer: str
    health: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, *more: str) -> None:
        """Start it, on what data it has. It ends with the thread that calls this: let that be the main one."""
        assert binary().exists(), "there is no etcd; run `make setup`"
        log = (self.directory / f"{self.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                # Whatever becomes of the test, its members do not outlive it.
                ("setpriv", "--pdeathsig", "KILL", str(binary()), *self.words, *more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )

    def kill(self) -> None:
        """As by a power cut; again is no failure."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP: it stands still, its connections stay. SIGCONT: it goes on."""
        assert self.process is not None
        self.process.send_signal(number)

    def lose_data(self) -> None:
        """Its disk is a new one."""
        shutil.rmtree(self.data)

    @property
    def data(self) -> Path:
        """Its directory."""
        return self.directory / self.name

    def healthy(self) -> bool:
        """It serves: there is a leader."""
        assert self.process is None or self.process.poll() is None, (self.directory / f"{self.name}.log").read_text()
        with suppress(OSError, ValueError), urllib.request.urlopen(f"{self.health}/health", timeout=0.3) as answer:
            return bool(json.load(answer)["health"] == "true")
        return False

    def metric(self, name: str) -> float:
        """One of its metrics."""
        with urllib.request.urlopen(f"{self.health}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@dataclass
class Nodes:
    """The members of one etcd.

    Attributes:
        credentials: of a client; authority: who makes others', where the members ask for them.
    """

    members: list[Node]
    credentials: Credentials
    authority: Authority | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Of all members."""
        return tuple(node.url for node in self.members)

    def wait(self) -> None:
        """Until all members that run can serve."""
        running = [node for node in self.members if node.process is not None]
        wait_until(lambda: all(node.healthy() for node in running), within=START_S, what="etcd serves")

    def heal(self) -> None:
        """All members run and serve."""
        for node in self.members:
            if node.process is None:
                node.start()
            else:
                node.signal(signal.SIGCONT)
        self.wait()

    def leader(self) -> Node:
        """The member that leads."""

        def leads() -> Node | None:
            running = [node for node in self.members if node.process is not None]
            return next((node for node in running if node.metric("etcd_server_is_leader") == 1), None)

        found = wait_until(leads, within=START_S, what="a leader")
        assert found is not None
        return found

    def followers(self) -> list[Node]:
        """All others that run."""
        leader = self.leader()
        return [node for node in self.members if node is not leader and node.process is not None]

    def ask(self, path: str, **question: Any) -> Any:
        """What no host asks, by etcd's JSON gateway, of the first member that runs."""
        node = next(node for node in self.members if node.process is not None)
        request = urllib.request.Request(f"{node.url}/v3/{path}", json.dumps(question).encode())
        with urllib.request.urlopen(request, timeout=10, context=self._tls()) as answer:
            return json.load(answer)

    def _tls(self) -> ssl.SSLContext | None:
        files = self.credentials
        if files.ca is None or files.cert is None:
            return None
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.cert, files.key)
        return context

    def replace(self, node: Node) -> None:
        """Let a member that has lost its data join as a new one, and wait for it."""
        for member in self.ask("cluster/member/list")["members"]:
            if member["peerURLs"] == [node.peer]:
                self.ask("cluster/member/remove", ID=member["ID"])
        self.ask("cluster/member/add", peerURLs=[node.peer])
        node.start("--initial-cluster-state=existing")
        self.wait()

    def compact(self, revision: int = 0) -> int:
        """Forget what was before this revision, or (0) before the last; return which it was."""
        if not revision:
            answer = self.ask("kv/range", key=base64.b64encode(b"/").decode())
            revision = int(answer["header"]["revision"])
        self.ask("kv/compaction", revision=revision, physical=True)
        return revision


@contextmanager
def etcd_nodes(directory: Path, members: int = 1, *, tls: bool = False, address: str = "127.0.0.1") -> Iterator[Nodes]:
    """As many members, serving at an address; with `tls`, only to clients with a certificate of ours."""
    ports = iter(free_ports(3 * members))
    authority = Authority(directory) if tls else None
    server = authority.server(address) if authority is not None else Credentials()
    credentials = authority.client() if authority is not None else Credentials()
    scheme = "https" if tls else "http"
    nodes = []
    for number in range(members):
        url, peer, health = (f"{kind}://{address}:{next(ports)}" for kind in (scheme, "http", "http"))
        nodes.append((f"etcd{number}", url, peer, health))
    peers = ",".join(f"{name}={peer}" for name, _, peer, _ in nodes)
    made = [
        Node(name, directory, _words(directory, name, url, peer, health, peers, server), url, peer, health)
        for name, url, peer, health in nodes
    ]
    with ExitStack() as ending:
        for node in made:
            ending.callback(node.kill)
            node.start()
        found = Nodes(made, credentials, authority)
        found.wait()
        yield found


def free_ports(number: int) -> list[int]:
    """TCP ports of loopback that nobody uses."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _words(
    directory: Path, name: str, url: str, peer: str, health: str, peers: str, server: Credentials
) -> tuple[str, ...]:
    options = {
        "name": name,
        "data-dir": directory / name,
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": peers,
        "initial-cluster-token": directory.name,
        "listen-metrics-urls": health,
        "heartbeat-interval": HEARTBEAT_MS,
        "election-timeout": ELECTION_MS,
        "strict-reconfig-check": "false",  # a new member need not wait until the others have known each other for 5 s
    }
    if server.cert is not None:
        files = {"cert-file": server.cert, "key-file": server.key, "trusted-ca-file": server.ca}
        options |= {**files, "client-cert-auth": "true"}
    return tuple(f"--{option}={value}" for option, value in options.items())

"""Who may ask the agent, and what its log says of who changed what."""

from __future__ import annotations

import grp
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.agents import ServedHost
from vxagent.errors import HostError
from vxagent.protocol.answers import Applied, Done, Flushed
from vxagent.protocol.requests import DesiredText, PortAttach, PortSet
from vxagent.runtime import gate, peers, trail
from vxagent.runtime.peers import Peer, may_ask, read_peer, socket_group, who

ME = Peer(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
AGENT, GROUP = 990, 991
SOMEBODY = Peer(pid=1, uid=1000, gid=1000, groups=frozenset({27, 1000}))


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        (Peer(pid=1, uid=0, gid=0), True),
        (Peer(pid=1, uid=AGENT, gid=1), True),
        (Peer(pid=1, uid=1000, gid=GROUP), True),
        (Peer(pid=1, uid=1000, gid=1000, groups=frozenset({27, GROUP})), True),
        (Peer(pid=1, uid=1000, gid=1000, groups=None), True),
        (SOMEBODY, False),
        (Peer(pid=1, uid=1000, gid=0), False),
    ],
    ids=["root", "its own user", "primary group", "another group", "too many groups", "somebody", "root's group"],
)
def test_root_the_agents_user_and_its_group_may_ask(peer: Peer, may: bool) -> None:
    assert may_ask(peer, uid=AGENT, gid=GROUP) is may


def test_the_kernel_says_who_has_connected() -> None:
    here, there = socket.socketpair()
    with here, there:
        peer = read_peer(here)
    assert (peer.pid, peer.uid, peer.gid) == (ME.pid, ME.uid, ME.gid)
    assert peer.groups == frozenset(os.getgroups())


def test_somebody_is_named_by_user_uid_command_and_pid() -> None:
    command = Path(f"/proc/{ME.pid}/comm").read_text().strip()
    assert who(ME) == f"{peers._user(ME.uid)} (uid {ME.uid}, {command}[{ME.pid}])"
    assert who(Peer(pid=2**22 + 1, uid=2**31, gid=0)) == f"? (uid {2**31}, ?[{2**22 + 1}])"
    assert who(None) == "?"


def test_a_process_that_names_itself_makes_no_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "vx\nroot: done\x1b[2J\n")
    assert peers._command(1) == "vx?root: done?[2J"


def test_the_group_is_the_configured_one_its_own_or_vxagent(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getegid()
    assert socket_group(str(own)) == own
    assert socket_group(grp.getgrgid(own).gr_name) == own
    monkeypatch.setattr(peers, "DEFAULT_GROUP", "no-such-group")
    assert socket_group(None) == own


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(HostError, match="there is no group no-such-group; `groupadd --system no-such-group`"):
        socket_group("no-such-group")


def test_a_group_that_the_agents_user_is_not_in_is_refused_but_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(group for group in grp.getgrall() if group.gr_gid not in (os.getegid(), *os.getgroups()))
    monkeypatch.setattr(os, "geteuid", lambda: AGENT)
    with pytest.raises(HostError, match=f"the agent's user is not in group {other.gr_name}; add it"):
        socket_group(other.gr_name)
    monkeypatch.setattr(peers, "DEFAULT_GROUP", other.gr_name)
    assert socket_group(None) == os.getegid()


# --- what is logged ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (None, "PATCH /v1/ports/tap0"),
        (PortSet(mac=[], rate_in=None), "PATCH /v1/ports/tap0 mac=[] rate_in=null"),
        (PortAttach(ifname="tap0", segment="a\nb"), 'PATCH /v1/ports/tap0 ifname="tap0" segment="a\\nb"'),
        (PortSet(ip=["x" * 300]), f'PATCH /v1/ports/tap0 ip=["{"x" * 198}…'),
        (DesiredText(text="secret = 1", prune=True), "PATCH /v1/ports/tap0 text=(10 characters) prune=true"),
    ],
    ids=["nothing", "cleared", "escaped", "cut", "a document"],
)
def test_a_change_is_one_line_of_what_was_given(body: object, line: str) -> None:
    assert trail.what("PATCH", "/v1/ports/tap0", body) == line


def test_a_path_makes_no_line_of_its_own() -> None:
    assert trail.what("DELETE", "/v1/ports/a\nb\x1b", None) == "DELETE /v1/ports/a b "


def test_how_a_change_ended_is_said() -> None:
    assert trail.outcome_of(Done()) == "done"
    assert trail.outcome_of(Done(changed=False)) == "done, nothing changed"
    assert trail.outcome_of(Applied(changes=[])) == "done, 0 changes"
    assert trail.outcome_of(Flushed(removed=7)) == "done, 7 removed"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ServedHost]:
    with ServedHost(tmp_path) as host:
        yield host


@pytest.fixture
def api(host: ServedHost) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(host.run_dir / "api.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        yield client


class Lines(logging.Handler):
    """Keeps what is logged.

    Attributes:
        found: the lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.found.append(record.getMessage())


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log says of changes and of who may not ask, filled as it does."""
    handler = Lines()
    loggers = [logging.getLogger(module.__name__) for module in (trail, gate)]
    for logger in loggers:
        logger.addHandler(handler)
        caplog.set_level(logging.INFO, logger=logger.name)
    yield handler.found
    for logger in loggers:
        logger.removeHandler(handler)


def test_every_change_is_logged_with_who_what_and_how_it_ended(api: httpx.Client, lines: list[str]) -> None:
    blue = {"name": "blue", "tenant": "acme", "vlan": 10}
    api.post("/v1/segments", json=blue)
    api.post("/v1/segments", json=blue)
    api.patch("/v1/segments/blue", json={"vlan": None})
    api.delete("/v1/segments/red")
    api.post("/v1/segments", json={"nmae": "blue"})
    api.post("/v1/apply", json={"text": ""})
    api.post("/v1/fdb/flush", json={})
    by = f"change by {re.escape(who(ME))}: "
    expected = [
        r'POST /v1/segments name="blue" tenant="acme" vlan=10: done',
        r'POST /v1/segments name="blue" tenant="acme" vlan=10: done, nothing changed',
        r"PATCH /v1/segments/blue vlan=null: done",
        r"DELETE /v1/segments/red: refused: no segment red; see `vxagent segment list`",
        r"POST /v1/segments: refused: nmae: is not a known key",
        r"POST /v1/apply text=\(0 characters\): done, 0 changes",
        r"POST /v1/fdb/flush: done, 0 removed",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(by + pattern, line), line


def test_reading_is_not_logged(api: httpx.Client, lines: list[str]) -> None:
    for path in ("/v1/status", "/v1/ports", "/v1/export", "/metrics", "/nothing"):
        api.get(path)
    api.post("/v1/diff", json={"text": ""})
    assert lines == []


def test_who_may_not_ask_gets_a_sentence_and_the_log_a_line(
    api: httpx.Client, host: ServedHost, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Should somebody have opened the socket's mode: what the kernel says of him counts all the same."""
    monkeypatch.setattr(peers, "read_peer", lambda _: SOMEBODY)
    for answer in (api.get("/v1/status"), api.post("/v1/segments", json={"name": "blue", "tenant": "acme"})):
        assert answer.status_code == 403
        group = grp.getgrgid(os.getegid()).gr_name
        sentence = f"you may not ask this agent; it takes root, its own user and group {group}"
        assert answer.json()["error"] == {"type": "Forbidden", "message": sentence, "exit_code": 1}
    assert [line for line in lines if line.startswith("refused ") and "(uid 1000, " in line]
    assert host.running.switch.state.segments == {}

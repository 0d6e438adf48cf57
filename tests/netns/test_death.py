"""An agent dies at any system call that changes something. The next one leaves everything as if nothing had happened.

   a            b            c                     fabric, underlay
┌──────┐     ┌──────┐     ┌──────┐
│ eth0 │     │ eth0 │     │ eth0 │
└──┬───┘     └──┬───┘     └──┬───┘
┌──┴────────────┴────────────┴────┐
│  ta (tap)     vb (veth)   tc    ├── up0, o0         h0: the host itself
└─────────────────────────────────┘                   VTEPs: .5 is this host's, .9 another's with the VNI of blue

Commands come in pairs that undo each other, so that each death finds the same switch. `make deaths` tries every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import pytest

from support.choosing import spread
from support.deaths import Deaths, assert_like, deadly
from support.kernel_objects import KernelObjects, pinned_below
from support.lan import Lan, clean_world
from support.picture import Picture, picture
from vxagent.lab.agent import Agent
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, ethernet
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until

LEFT_ALONE = "ageing_s = 0\naudit_s = 3600\n"  # what is wrong stays wrong
OVERLAY = '[overlay]\nvtep = "192.0.2.5"\ndevice = "o0"\n'
LOWER, FAR = "192.0.2.3", "192.0.2.9"  # of which the first would bridge instead of this host
BLUE_VNI, RED_VNI, GREEN_VNI = 5010, 5020, 5030
MAC_A, MAC_B, MAC_C, MAC_FAR = (f"02:00:00:00:0a:0{n}" for n in (1, 2, 3, 9))
LOCKS = {"mac": [MAC_A], "ip": ["10.0.0.7", "2001:db8::/64"], "dhcp_snoop": True}
SETTINGS = {"vlan": 10, "mtu": 1450, "unknown_unicast": "flood", "multicast_snooping": False}
OTHER_SETTINGS = {"vlan": 12, "mtu": 1400, "unknown_unicast": "drop", "multicast_snooping": True}
LIMITS = {"rate_in": "1Gbit", "rate_out": "1Gbit,100kpps", "storm_broadcast": 1000, "isolated": True}


class Switch:
    """The topology above; tc is attached, the others come and go.

    Attributes:
        talkers: by port, who learns something there when he speaks.
    """

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        lan.segment("blue", vlan=10, vni=BLUE_VNI)
        lan.segment("red", vlan=20, vni=RED_VNI, multicast_snooping=True)
        a, b, c = lan.tap("ta", None, mac=MAC_A), lan.veth("vb", None, mac=MAC_B), lan.tap("tc", "blue", mac=MAC_C)
        self.fabric = lan.world.fabric(lan.switch, "up0")
        self.talkers: dict[str, Endpoint] = {"ta": a, "vb": b, "tc": c}
        self.change("POST", "vteps", address=FAR, vnis=[BLUE_VNI])
        self.speak("tc")

    def change(self, method: str, *path: str, **body: object) -> None:
        self.lan.client.change(method, "v1", *path, body=body or None)

    def attach(self, ifname: str, **options: object) -> None:
        self.change("POST", "ports", ifname=ifname, **options)

    def detach(self, port: str) -> None:
        self.change("DELETE", "ports", port)

    def speak(self, *ports: str) -> None:
        """Have frames learned, counted and dropped, and wait until they are."""
        for port in ports:
            vm = self.talkers[port]
            before = self.lan.received(port)
            heard = [ethernet(BROADCAST, mac, EXPERIMENTAL, b"") for mac in (vm.mac, f"{vm.mac[:-2]}ee", BROADCAST)]
            send_frames(vm.namespace, NIC, *heard)
            wait_until(partial(self._heard, port, before + len(heard)), what=f"{port} is heard")

    def _heard(self, port: str, frames: int) -> bool:
        return self.lan.received(port) >= frames


@pytest.fixture(scope="module")
def deaths() -> Iterator[tuple[Switch, Deaths]]:
    """One switch for all: each test leaves it as it was."""
    with clean_world() as world:
        namespace = world.namespace("switch")
        world.fabric(namespace, "o0")
        agent = Agent(world.directory(), namespace, config=LEFT_ALONE + OVERLAY)
        world.cleanup.callback(agent.end)
        lan = Lan(world, namespace, agent)
        with deadly(lan, world.directory() / "die-after") as dying:
            agent.up()
            yield Switch(lan), dying


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two commands of which each undoes the other; `speaks` are the ports that are used in between."""

    name: str
    do: Callable[[Switch], object]
    undo: Callable[[Switch], object]
    speaks: tuple[str, ...] = ()


def attached(name: str, ifname: str, **options: object) -> Pair:
    speaks = (ifname,) if ifname in ("ta", "vb") else ()
    return Pair(name=name, do=lambda s: s.attach(ifname, **options), undo=lambda s: s.detach(ifname), speaks=speaks)


def set_port(name: str, do: dict[str, object], undo: dict[str, object]) -> Pair:
    return Pair(
        name=name,
        do=lambda s: s.change("PATCH", "ports", "tc", **do),
        undo=lambda s: s.change("PATCH", "ports", "tc", **undo),
    )


def apply(document: str) -> Callable[[Switch], object]:
    def do(switch: Switch) -> None:
        file = switch.lan.agent.run_dir.parent / "switch.toml"
        file.write_text(document)
        switch.lan.agent.cli("apply", str(file))

    return do


def reload_with(config: str) -> Callable[[Switch], object]:
    def do(switch: Switch) -> None:
        switch.lan.agent.config_file.write_text(LEFT_ALONE + config)
        switch.change("POST", "reload")

    return do


BLUE = f'[[segment]]\nname = "blue"\ntenant = "acme"\nvlan = 10\nvni = {BLUE_VNI}\n'
RED = f'[[segment]]\nname = "red"\ntenant = "acme"\nvlan = 20\nvni = {RED_VNI}\nmulticast_snooping = true\n'
MANY = "".join(
    (
        BLUE.replace("vlan = 10", "vlan = 11"),
        RED,
        '[[uplink]]\nifname = "up0"\n',
        '[[port]]\nifname = "ta"\ntrunk = ["blue:5"]\nnative = "red"\n',
        '[[port]]\nifname = "vb"\nsegment = "red"\nmac = ["02:00:00:00:0a:02"]\n',
        '[[fdb]]\nsegment = "red"\nmac = "02:00:00:00:99:01"\nport = "vb"\n',
        f'[[vtep]]\naddress = "{LOWER}"\nvnis = [{BLUE_VNI}, {RED_VNI}]\n',
        f'[[fdb]]\nsegment = "blue"\nmac = "02:00:00:00:99:02"\nvtep = "{LOWER}"\n',
    )
)

PAIRS = (
    attached("a locked tap", "ta", segment="blue", **LOCKS),
    attached("a veth with limits", "vb", segment="blue", **LIMITS),
    attached("a trunk", "ta", trunk=["blue:110"], native="red"),
    attached("a device that is not there", "tz", segment="red"),
    Pair(
        name="the host",
        do=lambda s: s.change("POST", "ports", internal="h0", segment="red"),
        undo=lambda s: s.detach("h0"),
    ),
    Pair(
        name="an uplink",
        do=lambda s: s.change("POST", "uplinks", ifname="up0"),
        undo=lambda s: s.change("DELETE", "uplinks", "up0"),
    ),
    set_port("another segment and hook", {"segment": "red", "hook": "tc"}, {"segment": "blue", "hook": "auto"}),
    Pair(name="a document", do=apply(MANY), undo=apply(BLUE + RED)),
    Pair(
        name="a VTEP",
        do=lambda s: s.change("POST", "vteps", address=LOWER, vnis=[BLUE_VNI, RED_VNI]),
        undo=lambda s: s.change("DELETE", "vteps", LOWER),
    ),
    Pair(
        name="a VTEP's VNIs",
        do=lambda s: s.change("PATCH", "vteps", FAR, vnis=[RED_VNI]),
        undo=lambda s: s.change("PATCH", "vteps", FAR, vnis=[BLUE_VNI]),
    ),
    Pair(
        name="the underlay as an uplink",
        do=lambda s: s.change("POST", "uplinks", ifname="o0"),
        undo=lambda s: s.change("DELETE", "uplinks", "o0"),
    ),
    Pair(name="no overlay", do=reload_with(""), undo=reload_with(OVERLAY)),
    Pair(
        name="a static entry",
        do=lambda s: s.change("POST", "fdb", segment="blue", mac=MAC_FAR, vtep=FAR),
        undo=lambda s: s.change("DELETE", "fdb", "blue", MAC_FAR),
    ),
    Pair(
        name="a segment",
        do=lambda s: s.change("POST", "segments", name="green", tenant="acme", vlan=30, vni=GREEN_VNI),
        undo=lambda s: s.change("DELETE", "segments", "green"),
    ),
    Pair(
        name="a segment's settings",
        do=lambda s: s.change("PATCH", "segments", "blue", **OTHER_SETTINGS),
        undo=lambda s: s.change("PATCH", "segments", "blue", **SETTINGS),
    ),
)


RELOAD = Pair(name="reload", do=lambda s: s.change("POST", "reload"), undo=lambda _: None, speaks=("tc",))
TAKEOVER = Pair(
    name="tables take over",
    do=reload_with("fdb_entries = 1000\n" + OVERLAY),
    undo=reload_with(OVERLAY),
    speaks=("tc",),
)
ALL = (*PAIRS[:5], RELOAD, *PAIRS[5:12], TAKEOVER, *PAIRS[12:])
"""See `turns_of`: of the takeover the one step is where programs may run by either tables."""


def settled(switch: Switch) -> Picture:
    """How it is once nothing changes any more."""
    seen: list[Picture] = [{}]

    def still() -> bool:
        seen.append(picture(switch.lan))
        return seen[-1] == seen[-2]

    wait_until(still, what="nothing changes any more")
    return seen[-1]


def turns_of(pair: Pair) -> tuple[list[int], list[int]]:
    """Where the doing and the undoing is cut: of the first pair at both ends and in the middle, of the others one in
    turn, each time further along."""
    turn = ALL.index(pair)
    if not turn:
        return (both := [0, len(ALL) // 2, len(ALL) - 1]), both
    return ([turn], []) if turn % 2 else ([], [turn])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_a_command_is_done_when_the_next_agent_is_up(deaths: tuple[Switch, Deaths], pair: Pair) -> None:
    switch, dying = deaths
    ways = {pair.do: "done", pair.undo: "undone"}
    for do in (pair.do, pair.undo):  # numbers that nobody had before are given as they will be
        do(switch)
        switch.speak(*pair.speaks if do is pair.do else ())
    counts, wanted = [], []
    for do in (pair.do, pair.undo):
        counts.append(dying.steps_of(partial(do, switch)))
        wanted.append(settled(switch))
        switch.speak(*pair.speaks if do is pair.do else ())
    cuts = (spread(count, turns, len(ALL)) for count, turns in zip(counts, turns_of(pair), strict=True))
    for both in zip_longest(*cuts):
        for do, at, count, then in zip((pair.do, pair.undo), both, counts, wanted, strict=True):
            if at is None:
                do(switch)
            elif dying.die(partial(do, switch), at):
                switch.lan.agent.up()
            assert_like(switch.lan, then, f"{pair.name}, {ways[do]}, dead after {at} of {count}")
            switch.speak(*pair.speaks if do is pair.do else ())


def everything(switch: Switch) -> None:
    """Attach one of each kind."""
    switch.attach("ta", segment="blue", **LOCKS)
    switch.attach("vb", trunk=["blue:110"], native="red", rate_in="1Gbit")
    switch.change("POST", "ports", internal="h0", segment="red")
    switch.attach("tz", segment="red")
    switch.change("POST", "uplinks", ifname="up0")


def nothing_of(switch: Switch) -> None:
    """Detach them again."""
    for port in ("ta", "vb", "h0", "tz"):
        switch.detach(port)
    switch.change("DELETE", "uplinks", "up0")


def _are_gone(objects: KernelObjects) -> bool:
    return not objects.left()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without an agent"])
def test_down_and_up_end_where_they_would_have(
    deaths: tuple[Switch, Deaths], alone: bool, request: pytest.FixtureRequest
) -> None:
    switch, dying = deaths
    agent = switch.lan.agent
    everything(switch)
    request.addfinalizer(partial(nothing_of, switch))
    agent.cli("down")
    agent.up()
    there = settled(switch)
    if alone:
        agent.kill()
    counts = [dying.steps_of(lambda: agent.cli("down"))]
    nothing = settled(switch)
    counts.append(dying.steps_of(agent.up))
    assert_like(switch.lan, there, "up again")
    turns = [2 if alone else 1]
    for cut_down, cut_up in zip_longest(*(spread(count, turns, 4) for count in counts)):
        objects = pinned_below(agent.run_dir / "bpf")
        if alone:
            agent.kill()
        if cut_down is None or dying.die(lambda: agent.cli("down"), cut_down):
            agent.cli("down")
        assert_like(switch.lan, nothing, f"down, dead after {cut_down} of {counts[0]}")
        wait_until(partial(_are_gone, objects), what=f"programs and maps are gone after death {cut_down} of down")
        if cut_up is None or dying.die(agent.up, cut_up):
            agent.up()
        assert_like(switch.lan, there, f"up, dead after {cut_up} of {counts[1]}")
        if cut_down is not None:
            if alone:
                agent.kill()
            dying.die(lambda: agent.cli("down"), cut_down)
            agent.up()
            assert_like(switch.lan, there, f"down, dead after {cut_down} of {counts[0]}, and up")

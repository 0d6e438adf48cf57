"""The underlay device is the host's own: its traffic, its MTU, its uplink; and the overlay comes and goes.

     host 1                 host 2               x9: a Linux host
┌───────────────┐      ┌───────────────┐      ┌───────────────┐
│ a             │      │ b             │      │               │
│ eth1 .1  lan0 │      │ eth1 .2       │      │ eth0       .9 │
└──┬─────────┬──┘      └──┬────────────┘      └──┬────────────┘
   │         └─ inside    │                      │                inside: 198.51.100.2, which host 1 routes for
   └──────────────────────┴──────────────────────┴──── f          f: who is in a VLAN of the same network
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support import tcx
from support.fleet import OVERHEAD, UNDERLAY, Fleet, Host, running_fleet
from support.hearing import frame, ports_of, vlan
from support.lan import AMOUNT, assert_apart, assert_connected
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, LLDP, LLDP_MAC
from vxagent.lab.namespaces import CommandFailed, Namespace
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, VethVm
from vxagent.lab.waiting import wait_until

INSIDE, GATEWAY = "198.51.100.2", "198.51.100.1"
ROOM = 1500 - OVERHEAD[4]
VID = 30


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two hosts."""
    with running_fleet(2) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def linux(fleet: Fleet) -> VethVm:
    """x9."""
    return fleet.outsider(9)


@pytest.fixture(scope="module")
def inside(fleet: Fleet, linux: VethVm) -> Namespace:
    """A network behind host 1, and the way there from x9."""
    host, there = fleet.hosts[0].switch, fleet.world.namespace("inside")
    host.ip(*f"link add lan0 type veth peer name {NIC} netns {there.name}".split())
    host.ip_batch([f"address add {GATEWAY}/24 dev lan0", "link set lan0 up"])
    there.ip_batch([f"address add {INSIDE}/24 dev {NIC}", f"link set {NIC} up", f"route add default via {GATEWAY}"])
    there.wait_running(NIC)
    host.wait_running("lan0")
    host.sysctl("net/ipv4/ip_forward", 1)
    linux.namespace.ip("route", "add", "198.51.100.0/24", "via", fleet.hosts[0].vtep)
    return there


@pytest.fixture
def blue(fleet: Fleet) -> str:
    """A segment of its own."""
    return fleet.new_segment()


@pytest.fixture
def pair(fleet: Fleet, blue: str) -> tuple[VethVm, VethVm]:
    """a and b."""
    one, two = (host.veth(host.unique("v"), blue) for host in fleet.hosts)
    return one, two


# --- the host's own traffic -----------------------------------------------------------------------


def converse(client: Namespace, server: Namespace, address: str, *, lines: int = 200) -> int:
    """Somebody types, and each line is answered before the next one; how many were."""
    with server.entered():
        listener = socket.create_server((address, 0))

    def answer() -> None:
        with listener, listener.accept()[0] as connection:
            while said := connection.recv(64):
                connection.sendall(said)

    answering = threading.Thread(target=answer)
    answering.start()
    with client.entered():
        connection = socket.socket()
    with connection:
        connection.settimeout(5)
        connection.connect(listener.getsockname())
        done = 0
        for number in range(lines):
            connection.sendall(b"%8d" % number)
            done += connection.recv(64) == b"%8d" % number
    answering.join()
    return done


@contextmanager
def busy(one: VethVm, other: VethVm) -> Iterator[None]:
    """The VMs speak all the time."""
    pings = Pinger(one.namespace, other.address, interval=0.002).start()
    yield
    assert pings.stop().lost == []


def test_the_host_and_its_network_speak_as_ever(
    fleet: Fleet, linux: VethVm, inside: Namespace, pair: tuple[VethVm, VethVm]
) -> None:
    """Ping, TCP in bulk and line by line, ARP, what the host routes; with the agent, while it reloads, and without."""
    host, far = fleet.hosts[0], linux.namespace
    assert_connected(*pair)

    def speak() -> None:
        host.switch.ip("neighbour", "flush", "dev", UNDERLAY)
        far.ip("neighbour", "flush", "dev", NIC)
        for source, target, address in (
            (host.switch, far, linux.address),
            (far, host.switch, host.vtep),
            (far, inside, INSIDE),
        ):
            assert ping(source, address).lost == []
            assert bulk_tcp(source, target, address, amount=AMOUNT).received == AMOUNT
            assert converse(source, target, address) == 200

    with busy(*pair):
        speak()
        pings = Pinger(far, INSIDE, interval=0.002).start()
        host.agent.cli("reload")
        host.agent.kill()
        speak()
        host.agent.up()
        assert pings.stop().lost == []


@pytest.mark.parametrize(
    ("destination", "tags", "ethertype"),
    [
        (BROADCAST, (), EXPERIMENTAL),
        (BROADCAST, vlan(VID), EXPERIMENTAL),
        (LLDP_MAC, (), LLDP),
    ],
    ids=["untagged", "VLAN", "LLDP"],
)
def test_what_else_comes_to_the_underlay_is_the_hosts(
    fleet: Fleet,
    linux: VethVm,
    pair: tuple[VethVm, VethVm],
    destination: str,
    tags: tuple[tuple[int, int], ...],
    ethertype: int,
) -> None:
    sent = frame(destination, linux.mac, tags=tags, ethertype=ethertype)
    with Sniffer(fleet.hosts[0].switch, UNDERLAY, ethertype=ethertype) as stack:
        if destination == BROADCAST:
            assert fleet.who_hears(linux, sent, *pair) == []
        else:  # a bridge keeps it
            send_frames(fleet.underlay.namespace, "h1", sent)
            fleet.settle()
        assert len(stack.frames(lambda arrived: arrived.data[-46:] == sent[-46:])) == 1


def test_the_device_stays_as_it_is(fleet: Fleet) -> None:
    device = fleet.hosts[0].device(UNDERLAY)
    assert (device["promiscuity"], "xdp" in device, "NOARP" in device["flags"]) == (0, False, False)


# --- MTU ------------------------------------------------------------------------------------------


def findings(host: Host) -> dict[str, str]:
    """What `doctor` says of the overlay, without what is in order: text → level."""
    rows = host.client.get("v1", "doctor")
    return {
        row["what"]: row["level"]
        for row in rows
        if row["level"] != "ok" and ("overlay" in row["what"] or "VTEP" in row["what"])
    }


def test_a_segment_has_the_mtu_that_a_tunnel_takes_and_no_larger_one(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    name = host.unique("s")
    said = (
        f"MTU {ROOM + 1} of segment {name} is more than the {ROOM} that a tunnel on {UNDERLAY} takes; use --mtu {ROOM}"
    )
    with pytest.raises(CommandFailed, match=said):
        host.agent.cli("segment", "add", name, "--tenant", "acme", "--vni", "9001", "--mtu", str(ROOM + 1))
    assert name not in [row["name"] for row in host.agent.json("segment", "list")]
    host.agent.cli("segment", "add", name, "--tenant", "acme", "--vni", "9001")
    with pytest.raises(CommandFailed, match=said):
        host.agent.cli("segment", "set", name, "--mtu", str(ROOM + 1))
    assert [row["mtu"] for row in host.agent.json("segment", "list") if row["name"] == name] == [ROOM]
    host.agent.cli("segment", "del", name)


def test_a_frame_that_is_too_large_is_dropped_and_counted(fleet: Fleet, blue: str) -> None:
    host, other = fleet.hosts
    host.mtu = other.mtu = 1500  # of VMs that nobody has told
    try:
        a, b = host.veth(host.unique("v"), blue), other.veth(other.unique("v"), blue)
    finally:
        host.mtu = other.mtu = ROOM
    for destination in (BROADCAST, b.mac):
        assert fleet.who_hears(a, frame(destination, a.mac, size=ROOM), b) == ports_of(b)
        assert fleet.who_hears(a, frame(destination, a.mac, size=ROOM + 1), b) == []
    assert host.drops(a.port) == {"mtu_exceeded": 2}
    assert ping(a.namespace, b.address).lost == []
    assert bulk_tcp(a.namespace, b.namespace, b.address, amount=1 << 16, within=1).received == 0
    assert host.drops(a.port)["mtu_exceeded"] > 2


def test_an_underlay_that_takes_less_is_told_of_by_name(fleet: Fleet, blue: str, pair: tuple[VethVm, VethVm]) -> None:
    host = fleet.hosts[0]
    assert findings(host) == {}
    what = f"segment {blue} has MTU {ROOM}, the overlay room for 1350 bytes on device {UNDERLAY}"
    what += ": what is larger is lost there"
    host.switch.ip("link", "set", UNDERLAY, "mtu", "1400")
    try:
        wait_until(lambda: findings(host).get(what) == "warn", what="doctor names the segment")
        mend = f"`vxagent segment set {blue} --mtu 1350`"
        wait_until(lambda: f"WARNING {what}; {mend}" in host.agent.log(), what="so does the log")
        assert what in host.agent.cli("reload").stderr + host.agent.cli("reload").stdout
        host.agent.cli("stop")
        said = host.agent.log().count(what)
        host.agent.up()
        wait_until(lambda: host.agent.log().count(what) > said, what="so does the log of the next agent")
        host.agent.cli("segment", "set", blue, "--no-mtu")
        assert [row["mtu"] for row in host.agent.json("segment", "list") if row["name"] == blue] == [1350]
        assert what not in findings(host)
    finally:
        host.switch.ip("link", "set", UNDERLAY, "mtu", "1500")
    wait_until(lambda: findings(host) == {}, what="doctor has nothing to say")


def test_an_address_that_is_not_there_is_told_of(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    host.switch.ip("address", "del", f"{host.vtep}/24", "dev", UNDERLAY)
    try:
        what = (
            f"the host does not have the address {host.vtep} of its VTEP on device {UNDERLAY}: no other host reaches it"
        )
        wait_until(lambda: findings(host) == {what: "bad"}, what="doctor misses the address")
        assert host.agent.cli("doctor", check=False).returncode == 1
    finally:
        host.switch.ip("address", "add", f"{host.vtep}/24", "dev", UNDERLAY)
    wait_until(lambda: findings(host) == {}, what="doctor has nothing to say")


# --- an underlay that is an uplink too, and an overlay that comes and goes ------------------------


def test_the_underlay_may_be_an_uplink_with_vlans(fleet: Fleet, linux: VethVm, pair: tuple[VethVm, VethVm]) -> None:
    """VXLAN goes on while it becomes one and ceases to be; its VLANs, and the host's own traffic, besides."""
    host = fleet.hosts[0]
    assert_connected(*pair)
    f: Fabric = fleet.underlay.trunk("f")
    name = host.unique("s")
    with busy(*pair):
        host_pings = Pinger(linux.namespace, host.vtep, interval=0.002).start()
        for one in fleet.hosts:
            one.segment(name, tenant="green", vlan=VID)
            one.agent.cli("uplink", "add", UNDERLAY)
        green = [one.veth(one.unique("v"), name) for one in fleet.hosts]
        there = host.host(f, VID)
        for vm in green:
            assert_connected(vm, there)
        assert_connected(*green)
        assert_connected(*pair)
        assert fleet.who_hears(green[0], frame(BROADCAST, green[0].mac), green[1], f, *pair) == ports_of(green[1], f)
        assert fleet.who_hears(pair[0], frame(BROADCAST, pair[0].mac), pair[1], f, *green) == ports_of(pair[1])
        assert bulk_tcp(linux.namespace, host.switch, host.vtep, amount=AMOUNT).received == AMOUNT
        for one in fleet.hosts:
            one.agent.cli("uplink", "del", UNDERLAY)
        assert_apart(*green)
        assert host_pings.stop().lost == []
    assert_connected(*pair)
    assert host.device(UNDERLAY)["promiscuity"] == 0


def test_an_overlay_comes_and_goes_by_reload(fleet: Fleet, pair: tuple[VethVm, VethVm]) -> None:
    host = fleet.hosts[0]
    ifindex = host.device(UNDERLAY)["ifindex"]
    assert_connected(*pair)
    for _ in range(2):
        host.agent.config_file.write_text('host = "host1"\n')
        host.agent.cli("reload")
        with host.switch.entered():
            assert tcx.program_ids(ifindex) == []
        assert_apart(*pair)
        for vm in pair:
            vm.namespace.ip("neighbour", "flush", "dev", NIC)  # whom nobody answered they ask again only after a second
        assert {row["state"] for row in host.vteps().values()} == {"pending"}
        host.agent.config_file.write_text(fleet.config(1))
        host.agent.cli("reload")
        assert_connected(*pair)
    host.agent.cli("down")
    with host.switch.entered():
        assert tcx.program_ids(ifindex) == []
    host.agent.up()
    for vm in pair:
        vm.switch.wait_running(vm.port)
    assert_connected(*pair)

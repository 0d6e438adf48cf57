"""The machine changes under the agent: each thing once, found and put right, while a stream between two other ports
loses nothing.

   a              b              c              d
┌──────┐       ┌──────┐       ┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │       │ eth0 │        a, b: a tap and a veth that change, segment blue
└──┬───┘       └──┬───┘       └──┬───┘       └──┬───┘        c, d: nobody touches them; c pings d all the time
┌──┴──────────────┴──────────────┴──────────────┴───┐
│  ta             vb             tc             vd  ├── up0 (VLAN 10), o0 (underlay)
└───────────────────────────────────────────────────┘        .5 is this host's VTEP, .9 another's with the VNI of red
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from support.lan import Lan, assert_apart, assert_connected, running_lan
from vxagent.core.tables import DeviceRow, OverlayRow, PortFlag, PortRow, Row, RowKey, Table, fdb_key
from vxagent.datapath import abi, codec, maps
from vxagent.datapath.bpf import BpfError
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map, MapType
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType
from vxagent.datapath.pins import Pins
from vxagent.lab.namespaces import run
from vxagent.lab.ping import Pinger
from vxagent.lab.vm import NIC, TapVm, VethVm
from vxagent.lab.waiting import wait_until

AUDIT_S = 1
WITHIN_S = 10.0  # some audits, on a busy machine
STREAM_S = 0.002
VTEP, FAR, RED_VNI = "192.0.2.5", "192.0.2.9", 5020
OVERLAY = f'[overlay]\nvtep = "{VTEP}"\ndevice = "o0"\n'
XDP_PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit
TC_OK = bytes.fromhex("b7000000000000009500000000000000")  # r0 = TC_ACT_OK; exit


@dataclass(kw_only=True)
class Switch:
    """The switch drawn above."""

    lan: Lan
    a: TapVm
    b: VethVm
    c: TapVm
    d: VethVm

    @property
    def pins(self) -> Pins:
        return Pins(self.lan.agent.run_dir / "bpf")

    @contextmanager
    def map(self, name: str) -> Iterator[Map]:
        """One of the switch's maps, by its pin."""
        opened = Map.open(self.pins.sets()[-1].map(name), maps.declare(maps.DEFAULT_SIZES)[name])
        assert opened is not None
        with opened:
            yield opened

    @contextmanager
    def link(self, kind: str, port: str) -> Iterator[Link]:
        """The link ("links", "out" or "xdp") of a port, by its pin."""
        link = Link.open(self.pins.root / kind / str(self.handle(port)))
        assert link is not None
        with link:
            yield link

    def handle(self, port: str) -> int:
        """Of a port, an uplink or the underlay that has a device."""
        return int(self.row(Table.DEVICES, self.ifindex(port))["port"])

    def row(self, table: Table, key: int) -> dict[str, int]:
        """The members of a row of ports or devices."""
        with self.map(table) as opened:
            value = opened.lookup(codec.encode_key(table, key))
        assert value is not None
        return (abi.PORT if table is Table.PORTS else abi.DEVICE).unpack(value)

    def rows(self) -> dict[RowKey, Row]:
        """All of the agent's rows."""
        datapath = BpfDatapath(self.pins.root, self.lan.agent.state_dir / "bytecode")
        datapath.open(replace=False)
        with closing(datapath):
            return datapath.rows()

    def ifindex(self, ifname: str) -> int:
        return int(self.lan.device(ifname)["ifindex"])

    def count(self, what: str, kind: str) -> int:
        """`drift`, `repairs`, `postponed` or `foreign` of `status`."""
        return int(self.lan.client.get("v1", "status")[what].get(kind, 0))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(condition, within=WITHIN_S, what=what)

    def up(self, *ports: str) -> bool:
        return [self.lan.state(port) for port in ports] == ["up"] * len(ports)


@pytest.fixture(scope="module")
def made() -> Iterator[Switch]:
    """One switch for the tests of this file."""
    with running_lan(f"audit_s = {AUDIT_S}\n{OVERLAY}") as lan:
        lan.segment("blue", vlan=10)
        lan.uplink("up0")
        lan.world.fabric(lan.switch, "o0")
        lan.switch.ip("address", "add", f"{VTEP}/24", "dev", "o0")
        lan.segment("red", vni=RED_VNI)
        lan.client.change("POST", "v1", "vteps", body={"address": FAR, "vnis": [RED_VNI]})
        a, b = lan.tap("ta", None), lan.veth("vb", None)
        lan.attach("ta", "blue", ip=["10.0.0.0/24"], storm_broadcast=10_000)
        lan.attach("vb", "blue", mac=[b.mac], ip=[b.address])
        c, d = lan.tap("tc", "blue"), lan.veth("vd", "blue")
        lan.client.change("POST", "v1", "fdb", body={"segment": "blue", "mac": "02:00:00:00:99:01", "port": "ta"})
        yield Switch(lan=lan, a=a, b=b, c=c, d=d)


@pytest.fixture
def switch(made: Switch) -> Iterator[Switch]:
    """All is well before and afterwards, and the stream between c and d has lost nothing."""
    made.wait(lambda: made.up("ta", "vb", "tc", "vd"), "all ports are up")
    assert_connected(made.a, made.b)
    pinger = Pinger(made.c.namespace, made.d.address, interval=STREAM_S).start()
    try:
        yield made
    finally:
        pings = pinger.stop()
    made.wait(lambda: made.up("ta", "vb", "tc", "vd"), "all ports are up again")
    assert pings.sent
    assert pings.lost == []
    assert_connected(made.a, made.b)


# --- programs that somebody takes off or replaces -------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "port"),
    [("links", "ta"), ("links", "vb"), ("links", "up0"), ("links", "o0"), ("out", "o0")],
    ids=["tap", "veth", "uplink", "underlay", "underlay's egress"],
)
def test_a_program_that_somebody_detached_runs_again(switch: Switch, kind: str, port: str) -> None:
    before = {what: switch.count(what, "program") for what in ("drift", "repairs")}
    with switch.link(kind, port) as link:
        link.detach()
    switch.wait(lambda: switch.count("repairs", "program") == before["repairs"] + 1, "the program is put back")
    assert switch.count("drift", "program") == before["drift"] + 1
    with switch.link(kind, port) as link:
        assert link.ifindex == switch.ifindex(port)


def test_a_program_that_somebody_replaced_is_put_back(switch: Switch) -> None:
    before = switch.count("repairs", "program")
    spec = ProgSpec(name="theirs", type=ProgType.SCHED_CLS)
    with Program.load(spec, TC_OK) as theirs, switch.link("links", "vb") as link:
        ours = link.program_id
        assert link.update(theirs)
        switch.wait(lambda: switch.count("repairs", "program") == before + 1, "the program is put back")
        assert link.program_id == ours


def test_a_pin_that_somebody_removed_is_made_anew_before_its_program_ends(switch: Switch) -> None:
    before = switch.count("repairs", "pin")
    pin = switch.pins.links / str(switch.handle("vb"))
    pin.unlink()
    switch.wait(pin.exists, "the pin is back")
    switch.wait(lambda: switch.count("repairs", "pin") == before + 1, "that is counted")
    assert switch.count("drift", "program") == switch.count("repairs", "program")


def test_xdp_that_somebody_detached_runs_again(switch: Switch) -> None:
    before = switch.count("repairs", "xdp")
    with switch.link("xdp", "ta") as link:
        link.detach()
    switch.wait(lambda: switch.count("repairs", "xdp") == before + 1, "XDP is put back")
    assert "xdp" in switch.lan.device("ta")
    assert switch.lan.show("ta")["hook"] == "xdp+tc"


def test_ip_link_cannot_take_our_xdp_off(switch: Switch) -> None:
    program = switch.lan.device("ta")["xdp"]["prog"]["id"]
    assert switch.lan.switch.run("ip", "link", "set", "ta", "xdp", "off", check=False).returncode != 0
    assert switch.lan.device("ta")["xdp"]["prog"]["id"] == program


def in_the_place_of_ours(switch: Switch, theirs: Program) -> Link:
    """Their link at the XDP hook of ta; an audit may be faster, but not time and again."""
    at = switch.ifindex("ta")
    for _ in range(10):
        with switch.link("xdp", "ta") as link, switch.lan.switch.entered():
            link.detach()
            with suppress(BpfError):
                return Link.create(theirs, AttachType.XDP, at, "ta")
    raise AssertionError("an audit is always faster")


def test_somebody_elses_xdp_program_in_the_place_of_ours_is_told_and_left(switch: Switch) -> None:
    with Program.load(ProgSpec(name="theirs", type=ProgType.XDP, attach_type=AttachType.XDP), XDP_PASS) as theirs:
        foreign = in_the_place_of_ours(switch, theirs)
        before = switch.count("repairs", "xdp")
        with foreign:
            switch.wait(lambda: switch.count("foreign", "xdp") == 1, "the stranger is counted")
            assert switch.lan.show("ta")["hook_why"].startswith("somebody else's XDP program runs there")
            drift = switch.count("drift", "xdp")
            switch.wait(
                lambda: switch.lan.agent.log().count(f"xdp program {theirs.id} on device ta") == 1, "it is told"
            )
            assert_connected(switch.a, switch.b)
            assert switch.lan.device("ta")["xdp"]["prog"]["id"] == theirs.id
            assert switch.count("drift", "xdp") == drift
            assert switch.count("repairs", "xdp") == before
            assert "runs an XDP program of somebody else" in switch.lan.agent.cli("doctor", check=False).stdout
    switch.wait(lambda: switch.count("repairs", "xdp") == before + 1, "ours is back, without a command")
    assert (switch.count("drift", "xdp"), switch.count("foreign", "xdp")) == (drift + 1, 0)
    assert switch.lan.show("ta")["hook"] == "xdp+tc"
    with switch.link("xdp", "ta") as link:
        assert switch.lan.device("ta")["xdp"]["prog"]["id"] == link.program_id


def test_somebody_elses_filter_and_program_are_told_and_left(switch: Switch) -> None:
    place = ("dev", "vb", "ingress")
    switch.lan.switch.run("tc", "qdisc", "add", "dev", "vb", "clsact")
    switch.lan.switch.run("tc", "filter", "add", *place, "pref", "7", "bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1")
    switch.wait(lambda: switch.count("foreign", "clsact") == 1, "the filter is counted")
    assert "pref 7" in switch.lan.switch.run("tc", "filter", "show", *place).stdout
    assert_connected(switch.a, switch.b)
    switch.lan.switch.run("tc", "qdisc", "del", "dev", "vb", "clsact")
    switch.wait(lambda: switch.count("foreign", "clsact") == 0, "it is gone")


def test_what_somebody_does_again_and_again_is_not_fought_over(switch: Switch) -> None:
    """He has the last word for a while, and the log does not fill."""
    before = {what: switch.count(what, "limits") for what in ("repairs", "postponed")}
    key = codec.encode_key(Table.LIMITS, switch.handle("tc"))
    with switch.map("limits") as limits:
        right = limits.lookup(key)
        assert right != codec.empty(Table.LIMITS)

        def undone_again() -> bool:
            limits.update(key, codec.empty(Table.LIMITS))
            return switch.count("postponed", "limits") >= before["postponed"] + 2

        wait_until(undone_again, within=20, what="a repair was put off twice")
        assert switch.count("repairs", "limits") - before["repairs"] == 3
        lines = [line for line in switch.lan.agent.log().splitlines() if "of port tc" in line and "limits" in line]
        assert len(lines) == 3
        assert lines[-1].endswith("; it drifts again and again, and is looked after at longer and longer intervals")
        said = switch.lan.agent.cli("doctor", check=False).stdout
        assert "of port tc drifts again and again: 3 repairs, the next attempt is in " in said
        wait_until(lambda: limits.lookup(key) == right, within=30, what="it is looked after in the end")


def test_a_program_is_put_back_however_often_it_is_taken_off(switch: Switch) -> None:
    """Without it the VM would meet the host's stack."""
    for _ in range(5):
        before = switch.count("repairs", "program")
        with switch.link("links", "vb") as link:
            link.detach()
        switch.wait(lambda before=before: switch.count("repairs", "program") == before + 1, "it is put back")  # type: ignore[misc]  # bound
    assert switch.count("postponed", "program") == 0
    assert "program of port vb drifts again and again" in switch.lan.agent.cli("doctor", check=False).stdout


# --- maps edited by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize("table", Table)
def test_a_table_that_somebody_emptied_is_filled_again(switch: Switch, table: Table) -> None:
    """Row by row, and nothing else is touched. The rows of c, d and their segment stay: the stream goes by them."""
    rows = switch.rows()
    spared = {switch.handle("tc"), switch.handle("vd"), switch.ifindex("tc"), switch.ifindex("vd")}
    there = [key for at, key in rows if at is table and key not in spared]
    if table in (Table.SEGMENTS, Table.SETTINGS):
        there = [key for key in there if table is Table.SETTINGS or rows[table, key].vlan != 10]  # type: ignore[union-attr]  # rows of segments
    before, other = switch.count("repairs", table), abi.SETTINGS.pack(ageing_ns=7 * 10**9)
    with switch.map(table) as opened:
        for key in there:
            raw = codec.encode_key(table, key)
            if opened.spec.type is MapType.ARRAY:
                opened.update(raw, other if table is Table.SETTINGS else codec.empty(table))
            else:
                opened.delete(raw)
    assert there
    switch.wait(lambda: switch.count("repairs", table) == before + len(there), "every row is put back")
    assert switch.rows() == rows


def test_rows_that_somebody_wrote_go(switch: Switch) -> None:
    """A way from blue into a device that is no port, and a MAC that leads there."""
    rows = switch.rows()
    before = {table: switch.count("repairs", table) for table in (Table.FDB, Table.PORTS, Table.SLOTS)}
    lo = 1
    port = abi.PORT.pack(ifindex=lo, flags=0, state=1, handle=4000, segment=1, counter=0, counter_none=0, max_macs=0)
    with switch.map("ports") as ports, switch.map("fdb") as fdb, switch.map("slots") as slots:
        ports.update(struct.pack("=I", 4000), port)
        entry = abi.FDB_ENTRY.pack(port=4000, segment=1, origin=0)
        fdb.update(struct.pack("=Q", fdb_key(1, 0x020000004000)), entry)
        slots.update(struct.pack("=I", 1 << 16 | 999), abi.MEMBERSHIP.pack(port=4000, segment=1, slot=999))
    for table, count in before.items():
        switch.wait(lambda table=table, count=count: switch.count("repairs", table) == count + 1, f"{table} is right")  # type: ignore[misc]  # bound
    assert switch.rows() == rows


def test_a_frame_that_was_misled_by_hand_goes_right_again(switch: Switch) -> None:
    """The port of b made to lead to d's device: what the flow cache knows of it is forgotten with the repair."""
    key = codec.encode_key(Table.PORTS, switch.handle("vb"))
    with switch.map("ports") as ports:
        value = ports.lookup(key)
        assert value is not None
        row = abi.PORT.unpack(value) | {"ifindex": switch.ifindex("vd")}
        before = switch.count("repairs", "ports")
        ports.update(key, abi.PORT.pack(**row))
    switch.wait(lambda: switch.count("repairs", "ports") == before + 1, "the row is right")
    assert_connected(switch.a, switch.b)


def test_where_xdp_sends_to_is_put_right(switch: Switch) -> None:
    key, before = struct.pack("=I", switch.handle("ta")), switch.count("repairs", "xdp")
    with switch.map("xdp_devices") as devices:
        right = devices.lookup(key)
        assert right == struct.pack("=I", switch.ifindex("ta"))
        with switch.lan.switch.entered():
            devices.delete(key)
        switch.wait(lambda: switch.count("repairs", "xdp") == before + 1, "the entry is back")
        assert devices.lookup(key) == right


def test_learned_entries_and_counters_are_left_alone(switch: Switch) -> None:
    """Whatever frames bring about is no drift."""
    before = switch.lan.client.get("v1", "status")["drift"]
    learned = {row["mac"] for row in switch.lan.client.get("v1", "fdb") if row["origin"] == "learned"}
    assert switch.a.mac in learned
    pinger = Pinger(switch.a.namespace, switch.b.address).send(3 * AUDIT_S * 50)
    assert pinger.lost == []
    assert switch.lan.client.get("v1", "status")["drift"] == before
    assert {row["mac"] for row in switch.lan.client.get("v1", "fdb") if row["origin"] == "learned"} >= learned


# --- the file system of the pins -------------------------------------------------------------------


def test_a_bpffs_that_somebody_unmounted_is_mounted_anew_and_all_is_pinned_again(switch: Switch) -> None:
    """Not a frame is lost on any port: see the fixture, and the second stream."""
    root = switch.pins.root
    pins = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    pinger = Pinger(switch.a.namespace, switch.b.address, interval=STREAM_S).start()
    run("umount", str(root))
    assert not (root / "links").exists()
    switch.wait(root.is_mount, "the bpffs is mounted")
    switch.wait(lambda: {path.relative_to(root) for path in root.rglob("*") if path.is_file()} == pins, "all is pinned")
    assert pinger.stop().lost == []
    assert switch.count("drift", "program") == switch.count("repairs", "program")
    switch.lan.agent.kill()
    assert_connected(switch.a, switch.b)
    switch.lan.agent.up()


# --- devices ---------------------------------------------------------------------------------------


def attached_right(switch: Switch, port: str) -> bool:
    """The port is up, its rows name its device, its program runs there, and XDP sends there if anywhere."""
    if switch.lan.state(port) != "up":
        return False
    at = switch.ifindex(port)
    with switch.map("devices") as devices, switch.map("xdp_devices") as xdp:
        value = devices.lookup(codec.encode_key(Table.DEVICES, at))
        handle = abi.DEVICE.unpack(value)["port"] if value is not None else 0
        to = xdp.lookup(struct.pack("=I", handle))
    link = Link.open(switch.pins.links / str(handle))
    if link is None:  # it is about to be
        return False
    with link:
        right = link.ifindex == at and switch.row(Table.PORTS, handle)["ifindex"] == at
        return right and to in (None, struct.pack("=I", at))


def test_a_device_renamed_and_back_in_one_go(switch: Switch) -> None:
    switch.lan.switch.ip_batch(
        ["link set vb down", "link set vb name other", "link set other name vb", "link set vb up"]
    )
    switch.wait(lambda: attached_right(switch, "vb"), "vb is attached")
    switch.b.namespace.wait_running(NIC)


def test_two_devices_that_swap_their_names_in_one_go(switch: Switch) -> None:
    """Ports go by name: each VM is behind the other's port then, and b's lists MACs."""
    switch.lan.switch.ip_batch(
        [
            *(f"link set {name} down" for name in ("ta", "vb")),
            *("link set ta name x", "link set vb name ta", "link set x name vb"),
            *(f"link set {name} up" for name in ("ta", "vb")),
        ]
    )
    switch.wait(lambda: attached_right(switch, "ta") and attached_right(switch, "vb"), "both are attached")
    for name in ("ta", "vb"):
        assert "NOARP" in switch.lan.device(name)["flags"]
    switch.lan.switch.ip_batch(
        [
            *(f"link set {name} down" for name in ("ta", "vb")),
            *("link set ta name x", "link set vb name ta", "link set x name vb"),
            *(f"link set {name} up" for name in ("ta", "vb")),
        ]
    )
    switch.wait(lambda: attached_right(switch, "ta") and attached_right(switch, "vb"), "both are back")
    switch.b.namespace.wait_running(NIC)


def test_a_device_to_another_namespace_and_back(switch: Switch) -> None:
    elsewhere = switch.lan.world.namespace(switch.lan.unique("elsewhere"))
    for pause in (False, True):
        switch.lan.switch.ip("link", "set", "vb", "netns", elsewhere.name)
        if pause:
            switch.wait(lambda: switch.lan.state("vb") == "pending", "vb is away")
        elsewhere.ip("link", "set", "vb", "netns", switch.lan.switch.name)
        switch.lan.switch.ip("link", "set", "vb", "up")
        switch.wait(lambda: attached_right(switch, "vb"), "vb is back")
        switch.b.namespace.wait_running(NIC)
        assert_connected(switch.a, switch.b)


def made_anew(switch: Switch, ifname: str, index: int) -> None:
    """Delete vb and make a veth, whose other end is b's, with its number, in one go."""
    nic = f"peer name {NIC} netns {switch.b.namespace.name}"
    switch.lan.switch.ip_batch(
        ["link delete vb", f"link add {ifname} index {index} type veth {nic}", f"link set {ifname} up"]
    )
    switch.b.configure(mtu=1500)


def test_a_device_made_anew_with_the_same_name_and_number(switch: Switch) -> None:
    index = switch.ifindex("vb")
    made_anew(switch, "vb", index)
    assert switch.ifindex("vb") == index
    switch.wait(lambda: attached_right(switch, "vb"), "vb is attached")
    assert "NOARP" in switch.lan.device("vb")["flags"]
    switch.b.namespace.wait_running(NIC)


def test_a_stranger_that_has_the_number_of_a_port_s_device_is_not_forwarded_to(switch: Switch) -> None:
    index = switch.ifindex("vb")
    handle = switch.handle("vb")
    made_anew(switch, "stranger", index)
    switch.wait(lambda: switch.lan.state("vb") == "pending", "vb is pending")
    assert switch.row(Table.PORTS, handle)["ifindex"] == 0
    with switch.map("devices") as devices, switch.map("xdp_devices") as xdp:
        assert devices.lookup(codec.encode_key(Table.DEVICES, index)) is None
        assert xdp.lookup(struct.pack("=I", handle)) is None
    assert not (switch.pins.links / str(handle)).exists()
    flags = switch.lan.device("stranger")["flags"]
    assert "UP" in flags
    assert "NOARP" not in flags
    assert_apart(switch.a, switch.b)
    switch.lan.switch.ip("link", "delete", "stranger")
    switch.b.plug()


def test_an_mtu_that_is_too_small_is_sent_to_by_tc_alone_until_it_is_right(switch: Switch) -> None:
    key = struct.pack("=I", switch.handle("ta"))
    with switch.map("xdp_devices") as devices:
        switch.lan.switch.ip("link", "set", "ta", "mtu", "1400")
        switch.wait(lambda: devices.lookup(key) is None, "XDP sends to ta no more")
        switch.lan.switch.ip("link", "set", "ta", "mtu", "1500")
        switch.wait(lambda: devices.lookup(key) is not None, "XDP sends to ta again")


def test_a_device_that_is_set_down_is_left_down(switch: Switch) -> None:
    switch.lan.switch.ip("link", "set", "vb", "down")
    switch.wait(lambda: switch.lan.state("vb") == "down", "vb is down")
    before = switch.lan.client.get("v1", "status")["drift"]
    assert Pinger(switch.c.namespace, switch.d.address).send(2 * AUDIT_S * 50).lost == []
    assert switch.lan.state("vb") == "down"
    assert switch.lan.client.get("v1", "status")["drift"] == before
    switch.lan.switch.ip("link", "set", "vb", "up")
    switch.b.namespace.wait_running(NIC)


def test_a_host_that_speaks_on_a_port_again_is_silenced(switch: Switch) -> None:
    before = switch.count("repairs", "device")
    switch.lan.switch.sysctl("net/ipv6/conf/vb/disable_ipv6", 0)  # of which no event tells
    switch.lan.switch.ip("link", "set", "vb", "arp", "on")
    switch.wait(lambda: switch.count("repairs", "device") > before, "it is put right")
    switch.wait(lambda: "NOARP" in switch.lan.device("vb")["flags"], "no ARP")
    path = "/proc/sys/net/ipv6/conf/vb/disable_ipv6"
    switch.wait(lambda: switch.lan.switch.run("cat", path).stdout == "1\n", "no IPv6")


def test_an_uplink_hears_all_frames_again(switch: Switch) -> None:
    before = switch.count("repairs", "device")
    switch.lan.switch.ip("link", "set", "up0", "promisc", "off")
    switch.wait(lambda: switch.count("repairs", "device") == before + 1, "it is put right")
    assert "PROMISC" in switch.lan.device("up0")["flags"]


# --- metrics, and the start after a reboot ---------------------------------------------------------


def test_metrics_have_a_counter_for_every_kind_of_thing(switch: Switch) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(switch.lan.agent.run_dir / "api.sock"))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        text = client.makefile(encoding="utf-8").read()
    for kind in ("program", "xdp", "pin", "bpffs", "tail_call", "device", *Table):
        assert f'vxagent_drift_total{{object="{kind}"}}' in text
        assert f'vxagent_repairs_total{{object="{kind}"}}' in text
        assert f'vxagent_repairs_postponed_total{{object="{kind}"}}' in text
    assert 'vxagent_foreign_programs{hook="xdp"}' in text


def by_name(rows: dict[RowKey, Row], names: dict[int, str]) -> dict[object, object]:
    """The rows, with names of devices for their numbers."""
    found: dict[object, object] = {}
    for (table, key), row in rows.items():
        match row:
            case PortRow(ifindex=ifindex):
                peer = row.flags & ~PortFlag.PEER
                found[table, key] = names.get(ifindex), replace(row, ifindex=0, flags=peer)
            case DeviceRow():
                found[table, names.get(row.ifindex)] = row.port
            case OverlayRow(ifindex=ifindex):
                found[table, key] = names.get(ifindex), replace(row, ifindex=0)
            case _:
                found[table, key] = row
    return found


def device_names(lan: Lan) -> dict[int, str]:
    return {int(d["ifindex"]): d["ifname"] for d in json.loads(lan.switch.ip("-json", "link", "show"))}


def test_after_a_reboot_up_restores_everything_from_the_database(made: Switch) -> None:
    """The bpffs and the run dir are gone, and every device is another one."""
    lan = made.lan
    before, desired = by_name(made.rows(), device_names(lan)), lan.agent.cli("export").stdout
    lan.agent.kill()
    run("umount", str(made.pins.root))
    shutil.rmtree(lan.agent.run_dir)
    old = {name: number for number, name in device_names(lan).items()}
    for vm in (made.a, made.b, made.c, made.d):
        vm.unplug()
        vm.plug()
    for name in ("up0", "o0"):
        lan.switch.ip("link", "delete", name)
        lan.switch.ip("link", "add", name, "type", "veth", "peer", "name", f"trunk-{name}")
        lan.switch.ip("link", "set", name, "up")
    lan.switch.ip("address", "add", f"{VTEP}/24", "dev", "o0")
    assert not {old[name] for name in ("ta", "vb", "tc", "vd", "up0", "o0")} & set(device_names(lan))
    lan.agent.up()
    assert lan.agent.cli("export").stdout == desired
    assert made.up("ta", "vb", "tc", "vd")
    assert by_name(made.rows(), device_names(lan)) == before
    assert_connected(made.a, made.b)
    assert_connected(made.c, made.d)


def test_a_stranger_that_took_a_number_while_no_agent_ran_is_left_alone(made: Switch) -> None:
    lan, index = made.lan, made.ifindex("vb")
    lan.agent.kill()
    made_anew(made, "stranger", index)
    lan.agent.up()
    assert lan.state("vb") == "pending"
    assert "UP" in lan.device("stranger")["flags"]
    with made.map("devices") as devices:
        assert devices.lookup(codec.encode_key(Table.DEVICES, index)) is None
    lan.switch.ip("link", "delete", "stranger")
    made.b.plug()
    made.wait(lambda: attached_right(made, "vb"), "vb is attached")

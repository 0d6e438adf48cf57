"""The lab itself, with a Linux bridge where the switch will be: a test that relies on it must be able to.

va (veth)   ta (tap)   tb (tap without offloads)   up0 ── fabric ── hosts
   └───────────┴──────────┴── br0 ──────────────────┘
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from support.lan import AMOUNT, assert_apart, assert_connected
from vxagent.lab.bridge import Bridge
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, RARP, Frame, ethernet
from vxagent.lab.namespaces import DIRECTORY, CommandFailed, Namespace
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, iperf3, send_frames
from vxagent.lab.vm import NIC
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

MAC_A, MAC_B, MAC_C = (f"02:00:00:00:00:0{n}" for n in "abc")


@pytest.fixture
def switch(world: World) -> Namespace:
    """The bridge's namespace, which says nothing by itself."""
    return world.namespace("switch")


@pytest.fixture
def bridge(switch: Namespace) -> Bridge:
    return Bridge(switch)


def probe(source: str, text: bytes, *, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    return ethernet(BROADCAST, source, EXPERIMENTAL, text, tags=tags)


def test_veth_and_tap_vms_carry_bulk_tcp(world: World, switch: Namespace, bridge: Bridge) -> None:
    a = world.veth_vm(switch, "va", mac=MAC_A, address="10.0.0.1")
    b = world.tap_vm(switch, "ta", mac=MAC_B, address="10.0.0.2")
    c = world.tap_vm(switch, "tb", mac=MAC_C, address="10.0.0.3", offloads=False)
    for port in (a.port, b.port, c.port):
        bridge.add(port)
    assert_connected(a, b)
    assert_connected(b, c)
    assert_connected(c, a)


def test_a_tap_vm_sends_gso_frames_with_offloads_only(world: World, switch: Namespace, bridge: Bridge) -> None:
    a = world.tap_vm(switch, "ta", mac=MAC_A, address="10.0.0.1")
    b = world.tap_vm(switch, "tb", mac=MAC_B, address="10.0.0.2", offloads=False)
    for port in (a.port, b.port):
        bridge.add(port)
    with Sniffer(switch, a.port) as from_a, Sniffer(switch, b.port) as from_b:
        bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT)
        bulk_tcp(b.namespace, a.namespace, a.address, amount=AMOUNT)
        assert from_a.frames(lambda frame: frame.gso_size > 0)
        assert not from_b.frames(lambda frame: frame.gso_size > 0)


def test_a_moving_vm_gets_what_came_for_it_at_either_host(world: World, switch: Namespace, bridge: Bridge) -> None:
    vm = world.moving_vm(switch, "ta", mac=MAC_A)
    there = world.namespace("there")
    bridge.add(vm.port)
    other = Bridge(there)
    talkers = [world.veth_vm(at, f"v{n}", mac=MAC_B) for n, at in enumerate((switch, there))]
    bridge.add("v0")
    other.add("v1")

    def say(where: int, *words: bytes) -> None:
        send_frames(talkers[where].namespace, NIC, *(probe(MAC_B, word) for word in words))

    with Sniffer(vm.namespace, NIC) as heard, Sniffer(talkers[1].namespace, NIC) as wire:
        say(0, b"1", b"2")
        vm.stand_still()
        said = [frame.payload[:1] for frame in heard.frames()]
        vm.await_at(there)
        other.add(vm.port)
        there.wait_running(vm.port)
        say(0, b"nobody reads this")
        say(1, b"3", b"4")
        assert [frame.payload[:1] for frame in heard.frames()] == said == [b"1", b"2"]
        assert vm.left_behind() == 1
        vm.go_on()
        heard.wait_for(lambda frame: frame.payload[:1] == b"4")
        assert [frame.payload[:1] for frame in heard.frames()] == [b"1", b"2", b"3", b"4"]
        assert wire.wait_for(lambda frame: frame.ethertype == RARP).source == MAC_A
    vm.leave()
    assert vm.port not in switch.devices()


def test_a_moving_vm_that_stays_goes_on_where_it_is(world: World, switch: Namespace, bridge: Bridge) -> None:
    vm = world.moving_vm(switch, "ta", mac=MAC_A)
    there = world.namespace("there")
    other, talker = Bridge(there), world.veth_vm(there, "v0", mac=MAC_B)
    other.add("v0")
    vm.await_at(there)
    other.add(vm.port)
    there.wait_running(vm.port)
    send_frames(talker.namespace, NIC, ethernet(MAC_A, MAC_B, EXPERIMENTAL, b"1"), probe(MAC_B, b"2"))
    vm.stand_still()
    bridge.add(vm.port)
    near = world.veth_vm(switch, "v1", mac=MAC_B)
    bridge.add("v1")
    assert vm.stay() == 1  # what is for all was not for it
    assert vm.port not in there.devices()
    with Sniffer(vm.namespace, NIC) as heard:
        send_frames(near.namespace, NIC, probe(MAC_B, b"3"))
        heard.wait_for(lambda frame: frame.payload[:1] == b"3")


def test_hosts_of_one_vlan_meet_through_the_trunks(world: World, switch: Namespace, bridge: Bridge) -> None:
    near, far = world.fabric(switch, "up0"), world.fabric(switch, "up1")
    bridge.add("up0")
    bridge.add("up1")
    a = near.host(10, mac=MAC_A, address="10.0.0.1")
    b = far.host(10, mac=MAC_B, address="10.0.0.2")
    c = far.host(20, mac=MAC_C, address="10.0.0.3")
    d = far.host(None, mac="02:00:00:00:00:0d", address="10.0.0.4")
    with far.sniff() as wire:
        assert_connected(a, b)
        assert_apart(a, c)
        assert_apart(a, d)
        assert {frame.vid for frame in wire.frames()} == {10}
        assert wire.frames(lambda frame: frame.gso_size > 0)


def test_who_deletes_the_namespace_that_it_is_in_lives(world: World) -> None:
    """A signal may come while a thread is there, and cleaning up begins."""
    here = world.namespace("here")
    with here.entered():
        here.delete()
    assert not here.path.exists()


def test_the_sniffer_sees_tags_as_they_were_on_the_wire(world: World, switch: Namespace) -> None:
    vm = world.veth_vm(switch, "va", mac=MAC_A)
    sent = probe(MAC_A, b"twice", tags=((0x88A8, 5), (0x8100, 0x6014)))
    with Sniffer(switch, vm.port) as port:
        send_frames(vm.namespace, NIC, sent)
        seen = port.wait_for(lambda frame: b"twice" in frame.payload)
    assert seen == Frame(data=sent)
    assert seen.vid == 5
    assert seen.tags == ((0x88A8, 5), (0x8100, 0x6014))


def test_the_sniffer_tells_what_came_instead(world: World, switch: Namespace) -> None:
    vm = world.veth_vm(switch, "va", mac=MAC_A)
    with Sniffer(switch, vm.port) as port:
        send_frames(vm.namespace, NIC, probe(MAC_A, b"this"))
        with pytest.raises(TimeoutError, match=r"untagged  02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff  EtherType 0x88b5"):
            port.wait_for(lambda frame: b"that" in frame.payload, within=0.1)


def test_an_unplugged_vm_leaves_no_device_and_comes_back(world: World, switch: Namespace, bridge: Bridge) -> None:
    a = world.veth_vm(switch, "va", mac=MAC_A, address="10.0.0.1")
    b = world.tap_vm(switch, "ta", mac=MAC_B, address="10.0.0.2")
    for vm in (a, b):
        vm.unplug()
        assert vm.port not in switch.devices()
        vm.plug()
        bridge.add(vm.port)
    assert_connected(a, b)


def test_a_pinger_counts_every_request(world: World, switch: Namespace, bridge: Bridge) -> None:
    a = world.veth_vm(switch, "va", mac=MAC_A, address="10.0.0.1")
    b = world.veth_vm(switch, "vb", mac=MAC_B, address="10.0.0.2")
    for vm in (a, b):
        bridge.add(vm.port)
    pinger = Pinger(a.namespace, b.address, interval=0.005).start()
    wait_until(lambda: pinger.pings.received >= 5)
    b.unplug()
    lost_from = pinger.pings.sent
    wait_until(lambda: pinger.pings.sent >= lost_from + 5)
    pings = pinger.stop()
    assert pings.received >= 5
    assert set(range(lost_from + 1, lost_from + 5)) <= set(pings.lost)
    assert pings.sent == pings.received + len(pings.lost)


def test_bulk_tcp_into_nothing_receives_nothing(world: World, switch: Namespace) -> None:
    a = world.veth_vm(switch, "va", mac=MAC_A, address="10.0.0.1")
    b = world.veth_vm(switch, "vb", mac=MAC_B, address="10.0.0.2")
    assert bulk_tcp(a.namespace, b.namespace, b.address, amount=AMOUNT, within=0.2).received == 0
    assert ping(a.namespace, b.address, count=1, patience=0.1).lost == [0]


def test_iperf3_reports_what_the_receiver_got(world: World, switch: Namespace, bridge: Bridge) -> None:
    a = world.veth_vm(switch, "va", mac=MAC_A, address="10.0.0.1")
    b = world.veth_vm(switch, "vb", mac=MAC_B, address="10.0.0.2")
    for vm in (a, b):
        bridge.add(vm.port)
    assert iperf3(a.namespace, b.namespace, b.address, seconds=1) > 1e6


def test_a_failed_command_says_what_it_said(world: World) -> None:
    with pytest.raises(CommandFailed, match="Cannot find device"):
        world.namespace("empty").ip("link", "set", "nothing", "up")


VICTIM = """
import select
from vxagent.lab.world import World
with World() as world:
    switch = world.namespace("switch")
    vm = world.tap_vm(switch, "ta", mac="02:00:00:00:00:0a")
    print(world.name, world.directory(), vm.hypervisor.pid, flush=True)
    while True:  # no signal.pause(): one that comes just before would be handled after it, which is never
        select.select([], [], [], 0.1)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(ending: signal.Signals) -> None:
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    name, directory, pump = victim.stdout.readline().split()
    victim.send_signal(ending)
    victim.send_signal(ending)  # somebody is impatient
    _, said = victim.communicate(timeout=20)
    assert f"Stopped: {ending.name}" in said
    assert not list(DIRECTORY.glob(f"{name}-*"))
    assert not os.path.exists(directory)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pump), 0)


def test_the_pump_ends_with_its_owner() -> None:
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    name, directory, pump = victim.stdout.readline().split()
    victim.kill()
    victim.communicate(timeout=20)
    wait_until(lambda: not os.path.exists(f"/proc/{pump}"), what="end of the pump")
    for path in DIRECTORY.glob(f"{name}-*"):
        Namespace(path.name).delete()
    os.rmdir(directory)

"""Guests as QEMU runs them, with the offloads that Debian's virtio_net turns on, on taps of a switch.

 one (Linux 6.12)        other (Linux 6.1)
┌───────────────┐       ┌───────────────┐
│     eth0      │       │     eth0      │
└───────┬───────┘       └───────┬───────┘
      QEMU                    QEMU
┌───────┴───────────────────────┴───────┐
│      q1                      q2       │    the taps stay; each test attaches them as it needs
└───────────────────────────────────────┘    switch: one for all tests of this file
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.lan import Lan, running_lan
from vm.lab.guest import Guest
from vm.lab.qemu import Nic
from vm.lab.traffic import MEGABYTE, Datagrams, bulk_tcp, datagrams, ping
from vm.lab.vms import Vms
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.waiting import wait_until

pytestmark = pytest.mark.timeout(300)  # a guest takes minutes to start where others want the CPUs, too

TAPS = ("q1", "q2")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
ADDRESSES = ("10.0.0.1", "10.0.0.2")
JUMBO = 9000


@dataclass
class Pair:
    """The guests and their switch.

    Attributes:
        one, other: the guests on the taps q1 and q2.
    """

    lan: Lan
    vms: Vms
    one: Guest
    other: Guest

    def attach(self, *segments: str, **options: object) -> None:
        """Put each guest's tap into its segment, or both into the only one."""
        for tap, segment in zip(TAPS, segments * (1 if len(segments) == 2 else 2), strict=True):
            self.lan.attach(tap, segment, **options)

    def address(self, *, mtu: int = 1500, addresses: tuple[str, str] = ADDRESSES) -> None:
        """Give the guests' NICs addresses and a MTU."""
        for guest, address in zip((self.one, self.other), addresses, strict=True):
            configure(guest, address, mtu=mtu)


def configure(guest: Guest, address: str, *, mtu: int = 1500, device: str = "eth0") -> None:
    """Set a device up in a guest, with this address alone."""
    guest.sh(
        f"ip link set {device} mtu {mtu} up\nip address flush dev {device}\nip address add {address}/24 dev {device}"
    )


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    """Guests that run."""
    with running_lan() as lan:
        vms = Vms(lan.world)
        for tap in TAPS:
            lan.switch.ip(*f"tuntap add dev {tap} mode tap vnet_hdr".split())
        one, other = (
            vms.small(lan.switch, Nic(ifname=tap, mac=mac), series=series, name=name)
            for tap, mac, series, name in zip(TAPS, MACS, ("6.12", "6.1"), ("one", "other"), strict=True)
        )
        for guest in (one, other):
            guest.wait_up()
        yield Pair(lan, vms, one, other)


@pytest.fixture
def pair(both: Pair) -> Iterator[Pair]:
    """The guests, plugged in nowhere and with no address; both are again at the end."""
    yield both
    for tap in TAPS:
        both.lan.agent.cli("port", "detach", tap, check=False)
        both.lan.switch.ip("link", "set", tap, "mtu", "1500")


def assert_bulk(one: Guest, other: Guest, addresses: tuple[str, str] = ADDRESSES, amount: int = 8 * MEGABYTE) -> None:
    """Both send the other bulk TCP, and all of it arrives as it was sent."""
    assert bulk_tcp(one, other, addresses[1], amount=amount) == amount
    assert bulk_tcp(other, one, addresses[0], amount=amount) == amount


def test_guests_ping_each_other_and_bulk_tcp_arrives_both_ways(pair: Pair) -> None:
    pair.attach(pair.lan.new_segment())
    pair.address()
    assert ping(pair.one, ADDRESSES[1]) == 3
    with Sniffer(pair.lan.switch, "q1") as wire:
        assert_bulk(pair.one, pair.other)
        assert any(frame.gso_size > 0 for frame in wire.frames(lambda _: True)), "the guests do not segment themselves"


@pytest.mark.parametrize("size", [64, 1400, 8000])  # the last ones are fragmented
def test_udp_arrives_whole_once_and_in_order(pair: Pair, size: int) -> None:
    pair.attach(pair.lan.new_segment())
    pair.address()
    for sender, receiver, address in ((pair.one, pair.other, ADDRESSES[1]), (pair.other, pair.one, ADDRESSES[0])):
        assert datagrams(sender, receiver, address, size=size) == Datagrams(lost=0, late=0, copies=0)


def test_udp_to_another_segment_is_lost_to_the_last_datagram(pair: Pair) -> None:
    pair.attach(pair.lan.new_segment(), pair.lan.new_segment())
    pair.address()
    pair.one.sh(f"arp -s {ADDRESSES[1]} {MACS[1]}")
    try:
        assert datagrams(pair.one, pair.other, ADDRESSES[1], count=50) == Datagrams(lost=50, late=0, copies=0)
    finally:
        pair.one.sh(f"arp -d {ADDRESSES[1]}")


def test_jumbo_frames_pass_a_jumbo_segment(pair: Pair) -> None:
    for tap in TAPS:
        pair.lan.switch.ip("link", "set", tap, "mtu", str(JUMBO))
    pair.attach(pair.lan.new_segment(mtu=JUMBO))
    pair.address(mtu=JUMBO)
    assert ping(pair.one, ADDRESSES[1], size=JUMBO - 28) == 3
    assert_bulk(pair.one, pair.other)


def test_jumbo_frames_do_not_pass_another_segment(pair: Pair) -> None:
    for tap in TAPS:
        pair.lan.switch.ip("link", "set", tap, "mtu", str(JUMBO))
    pair.attach(pair.lan.new_segment())
    pair.address(mtu=JUMBO)
    assert ping(pair.one, ADDRESSES[1]) == 3
    assert ping(pair.one, ADDRESSES[1], size=JUMBO - 28, count=2) == 0
    assert pair.lan.drops("q1")["mtu_exceeded"] == 2


def test_a_guest_with_tagged_interfaces_is_in_the_segments_of_its_trunk(pair: Pair) -> None:
    blue, red = pair.lan.new_segment(), pair.lan.new_segment()
    pair.lan.attach("q1", trunk=[f"{blue}:10", f"{red}:20"])
    addresses = {10: "10.0.10.1", 20: "10.0.20.1"}
    pair.one.sh("ip link set eth0 up; ip address flush dev eth0")
    for vid, address in addresses.items():
        pair.one.sh(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}")
        configure(pair.one, address, device=f"eth0.{vid}")
    try:
        for segment, vid, foreign in ((blue, 10, 20), (red, 20, 10)):
            pair.lan.attach("q2", segment)
            own = f"10.0.{vid}.2"
            configure(pair.other, own)
            assert ping(pair.other, addresses[vid]) == 3
            assert_bulk(pair.one, pair.other, (addresses[vid], own))
            configure(pair.other, f"10.0.{foreign}.2")
            assert ping(pair.other, addresses[foreign], count=2) == 0
            pair.lan.agent.cli("port", "detach", "q2")
    finally:
        for vid in addresses:
            pair.one.sh(f"ip link delete eth0.{vid}")


def test_guests_of_two_tenants_with_equal_addresses_do_not_meet(pair: Pair) -> None:
    lan = pair.lan
    acme, evil = lan.new_segment(), lan.new_segment(tenant="evil")
    pair.attach(acme, evil)
    pair.address(addresses=(ADDRESSES[0], ADDRESSES[0]))
    peers = [lan.tap(lan.unique("t"), segment, address="10.0.0.9", mac="02:00:00:00:00:99") for segment in (acme, evil)]
    for guest, own, foreign in ((pair.one, peers[0], peers[1]), (pair.other, peers[1], peers[0])):
        with Sniffer(own.namespace, "eth0") as here, Sniffer(foreign.namespace, "eth0") as there:
            assert ping(guest, "10.0.0.9") == 3
            assert here.frames(lambda _: True) != []
            assert there.frames(lambda _: True) == []
    assert ping(pair.one, ADDRESSES[1], count=2) == 0


def test_a_guest_that_reboots_is_connected_again(pair: Pair) -> None:
    pair.attach(pair.lan.new_segment())
    pair.address()
    assert ping(pair.one, ADDRESSES[1]) == 3
    pair.other.reboot()
    configure(pair.other, ADDRESSES[1])
    assert ping(pair.one, ADDRESSES[1]) == 3
    assert_bulk(pair.one, pair.other)


def test_qemu_is_killed_and_comes_back_on_the_same_tap(pair: Pair) -> None:
    pair.attach(pair.lan.new_segment())
    pair.address()
    assert ping(pair.one, ADDRESSES[1]) == 3
    pair.other.kill()
    assert ping(pair.one, ADDRESSES[1], count=1) == 0
    pair.other.start()
    pair.other.wait_up()
    configure(pair.other, ADDRESSES[1])
    assert ping(pair.one, ADDRESSES[1]) == 3
    assert_bulk(pair.one, pair.other)


def test_a_tap_that_qemu_makes_comes_and_goes_with_it(pair: Pair) -> None:
    lan = pair.lan
    segment = lan.new_segment()
    lan.attach("q1", segment)
    configure(pair.one, ADDRESSES[0])
    lan.attach("q3", segment)
    third = pair.vms.small(lan.switch, Nic(ifname="q3", mac="02:00:00:00:00:03"), name="third")
    for _ in range(2):
        third.wait_up()
        wait_until(lambda: lan.state("q3") == "up", what="q3 is up")
        configure(third, "10.0.0.3")
        assert ping(third, ADDRESSES[0]) == 3
        assert_bulk(pair.one, third, (ADDRESSES[0], "10.0.0.3"))
        third.kill()
        wait_until(lambda: lan.state("q3") == "pending", what="q3 is pending")
        third.start()
    third.kill()


def test_a_guest_of_several_queues_has_tc(pair: Pair) -> None:
    lan = pair.lan
    segment = lan.new_segment()
    lan.attach("q1", segment)
    configure(pair.one, ADDRESSES[0])
    lan.switch.ip("tuntap", "add", "dev", "q4", "mode", "tap", "vnet_hdr", "multi_queue")
    lan.attach("q4", segment)
    several = pair.vms.small(lan.switch, Nic(ifname="q4", mac="02:00:00:00:00:04", queues=2), cpus=2, name="several")
    several.wait_up()
    try:
        [port] = [port for port in lan.client.get("v1", "ports") if port["id"] == "q4"]
        assert (port["hook"], port["hook_why"]) == (
            "tc",
            "a tap of several queues, of which XDP and tc choose differently",
        )
        assert several.sh("ls -d /sys/class/net/eth0/queues/rx-*").output.split()[1:] != []
        configure(several, "10.0.0.4")
        assert ping(several, ADDRESSES[0]) == 3
        assert_bulk(pair.one, several, (ADDRESSES[0], "10.0.0.4"))
    finally:
        several.kill()
        lan.agent.cli("port", "detach", "q4")
        lan.switch.ip("link", "delete", "q4")


@pytest.mark.parametrize("trusted", [True, False], ids=["a trusted port", "another port"])
def test_a_guest_serves_dhcp_on(pair: Pair, trusted: bool) -> None:
    segment = pair.lan.new_segment()
    pair.lan.attach("q1", segment, trusted=trusted)
    pair.lan.attach("q2", segment)
    configure(pair.one, ADDRESSES[0])
    pair.other.sh("ip address flush dev eth0; ip link set eth0 up")
    pair.one.write(
        "/tmp/udhcpd.conf",
        "start 10.0.0.20\nend 10.0.0.29\ninterface eth0\nlease_file /tmp/leases\npidfile /tmp/udhcpd.pid\n"
        "option subnet 255.255.255.0\n",
    )
    pair.one.sh("touch /tmp/leases; udhcpd /tmp/udhcpd.conf")
    try:
        asked = pair.other.sh("udhcpc -n -q -f -i eth0 -t 3 -T 1 -s /bin/got-lease", check=False)
        got = "10.0.0.2" in pair.other.sh("ip -4 address show dev eth0").output
        assert (asked.code == 0, got) == (trusted, trusted), asked.output
        assert (pair.lan.drops("q1").get("dhcp_server_denied", 0) > 0) == (not trusted)
    finally:
        pair.one.sh("kill $(cat /tmp/udhcpd.pid)")

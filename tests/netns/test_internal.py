"""Internal ports: the host itself in a segment, by a device of its own.

   vm                       host's stack
┌──────┐                  ┌──────────────────────┐
│ eth0 │ 10.0.0.1         │ hv0        10.0.0.99 │
└──┬───┘                  └───┬──────────────────┘
┌──┴──────────────────────────┴───┐
│  va           switch            │
└─────────────────────────────────┘
"""

from __future__ import annotations

import pytest

from support.lan import AMOUNT, Lan, assert_apart, assert_connected
from vxagent.lab.agent import running
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, Endpoint, VethVm
from vxagent.lab.waiting import wait_until

HOST_ADDRESS = "10.0.0.99"


@pytest.fixture
def vm(lan: Lan) -> VethVm:
    """A VM in segment blue."""
    lan.segment("blue")
    return lan.veth("va", "blue")


@pytest.fixture
def host(lan: Lan, vm: VethVm) -> Endpoint:
    """The host in segment blue, by device hv0."""
    lan.agent.cli("port", "attach", "--internal", "hv0", "--segment", "blue")
    return address_host(lan)


def address_host(lan: Lan) -> Endpoint:
    """Give hv0 its address, as the operator does."""
    lan.switch.ip("address", "add", f"{HOST_ADDRESS}/24", "dev", "hv0")
    lan.switch.ip("link", "set", "hv0", "up")
    return Endpoint(namespace=lan.switch, mac=mac_of(lan, "hv0"), address=HOST_ADDRESS)


def mac_of(lan: Lan, ifname: str) -> str:
    return str(lan.device(ifname)["address"])


def test_without_an_internal_port_host_and_vm_do_not_meet(lan: Lan, vm: VethVm) -> None:
    assert ping(lan.switch, vm.address, count=2, patience=0.2).received == 0


def test_the_host_talks_with_a_vm_through_its_internal_port(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    assert_connected(host, vm)
    assert lan.show("hv0")["mode"] == "internal"
    assert lan.entry("blue", host.mac) is not None
    with Sniffer(vm.namespace, NIC) as at_vm:
        assert bulk_tcp(lan.switch, vm.namespace, vm.address, amount=AMOUNT).received == AMOUNT
        assert at_vm.frames(lambda arrived: arrived.gso_size > 0)


def test_the_host_is_in_that_segment_only(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    lan.segment("red")
    stranger = lan.veth("vb", "red")
    assert ping(lan.switch, vm.address).lost == []
    assert_apart(stranger, host)


def test_a_detached_internal_port_leaves_no_device(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    before = lan.switch.devices()
    lan.agent.cli("port", "detach", "hv0")
    left = lan.switch.devices()
    assert before - left == {"hv0", *(name for name in before if name.startswith("vxi-"))}
    assert ping(vm.namespace, HOST_ADDRESS, count=2, patience=0.2).received == 0


def test_an_internal_port_goes_on_without_the_agent_and_with_the_next_one(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    pid = lan.agent.pid
    lan.agent.kill()
    assert not running(pid)
    assert_connected(host, vm)
    lan.agent.up()
    assert_connected(host, vm)
    assert mac_of(lan, "hv0") == host.mac


def test_an_internal_port_goes_with_down_and_comes_back_with_up(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    lan.agent.cli("down")
    assert not {name for name in lan.switch.devices() if name == "hv0" or name.startswith("vxi-")}
    lan.agent.up()
    assert mac_of(lan, "hv0") == host.mac
    assert lan.state("hv0") == "up"
    assert_connected(address_host(lan), vm)


def test_an_internal_port_whose_device_was_removed_comes_back_with_the_next_agent(
    lan: Lan, vm: VethVm, host: Endpoint
) -> None:
    lan.agent.cli("stop")
    lan.switch.ip("link", "delete", "hv0")
    lan.agent.up()
    assert_connected(address_host(lan), vm)


def test_an_internal_port_whose_device_is_removed_says_what_brings_it_back(
    lan: Lan, vm: VethVm, host: Endpoint
) -> None:
    lan.switch.ip("link", "delete", "hv0")
    wait_until(lambda: lan.state("hv0") == "pending")
    assert lan.show("hv0")["why"] == "device hv0 was removed; `vxagent reload` makes it anew"
    lan.agent.cli("reload")
    assert_connected(address_host(lan), vm)


def test_an_internal_port_with_a_listed_mac_has_it(lan: Lan, vm: VethVm) -> None:
    lan.agent.cli("port", "attach", "--internal", "hv0", "--segment", "blue", "--mac", "02:00:00:00:0a:0a")
    assert mac_of(lan, "hv0") == "02:00:00:00:0a:0a"
    assert_connected(address_host(lan), vm)


def test_an_internal_port_has_the_segments_mtu(lan: Lan) -> None:
    lan.segment("small", mtu=1200)
    lan.agent.cli("port", "attach", "--internal", "hv0", "--segment", "small")
    assert lan.device("hv0")["mtu"] == 1200


def test_an_internal_port_that_gets_another_mac_goes_on(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    lan.agent.cli("port", "set", "hv0", "--mac", "02:00:00:00:0a:0a", "--ip", HOST_ADDRESS)
    assert mac_of(lan, "hv0") == "02:00:00:00:0a:0a"
    assert ping(lan.switch, vm.address).lost == []
    assert_connected(Endpoint(namespace=lan.switch, mac=mac_of(lan, "hv0"), address=HOST_ADDRESS), vm)
    lan.agent.cli("stop")
    lan.agent.up()
    assert mac_of(lan, "hv0") == "02:00:00:00:0a:0a"
    assert ping(lan.switch, vm.address).lost == []


def test_both_ends_of_an_internal_port_follow_the_segments_mtu(lan: Lan, vm: VethVm, host: Endpoint) -> None:
    pair = [name for name in lan.switch.devices() if name == "hv0" or name.startswith("vxi-")]
    lan.agent.cli("segment", "set", "blue", "--mtu", "1400")
    assert {lan.device(name)["mtu"] for name in pair} == {1400}
    lan.agent.cli("stop")
    lan.switch.ip("link", "set", "hv0", "mtu", "1300")
    lan.agent.up()
    assert lan.device("hv0")["mtu"] == 1300  # the host's own choice
    assert ping(lan.switch, vm.address).lost == []


def test_an_internal_port_does_not_take_a_device_that_is_there(lan: Lan, vm: VethVm) -> None:
    lan.switch.ip("link", "add", "mine", "type", "bridge")
    with pytest.raises(CommandFailed, match="a device mine is there already") as refused:
        lan.agent.cli("port", "attach", "--internal", "mine", "--segment", "blue")
    assert refused.value.code == 1
    assert "mine" in lan.switch.devices()

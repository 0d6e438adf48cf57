"""Values check themselves where they come in."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.errors import Invalid
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import check_ifname, check_ip, check_mac, int_to_mac, mac_to_int
from vxagent.model.port import Hook, Mode, Port
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep


@pytest.mark.parametrize("vlan", [0, 4095, -1, 65536])
def test_a_vlan_outside_1_to_4094_is_refused(vlan: int) -> None:
    with pytest.raises(Invalid, match=r"vlan .* must be 1 to 4094"):
        Segment(name="blue", tenant="acme", vlan=vlan)


@pytest.mark.parametrize("vni", [0, 1 << 24])
def test_a_vni_outside_24_bits_is_refused(vni: int) -> None:
    with pytest.raises(Invalid, match="vni"):
        Segment(name="blue", tenant="acme", vni=vni)


@pytest.mark.parametrize("mtu", [0, 575, 65536])
def test_an_mtu_out_of_range_is_refused(mtu: int) -> None:
    with pytest.raises(Invalid, match="mtu"):
        Segment(name="blue", tenant="acme", mtu=mtu)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 64, "a/b", "ä", "a\nb"])
def test_a_bad_segment_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="segment"):
        Segment(name=name, tenant="acme")


@pytest.mark.parametrize("name", ["", "x" * 16, "a b", "a/b", "..", ".", "a:b", "tap\x00", "tap\n"])
def test_a_device_name_that_the_kernel_refuses_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="device"):
        check_ifname("device", name)


@pytest.mark.parametrize("name", ["tap0", "eth1.5", "x" * 15, "vnet-1_a"])
def test_a_device_name_that_the_kernel_takes_is_taken(name: str) -> None:
    assert check_ifname("device", name) == name


@pytest.mark.parametrize("mac", ["02:00:00:00:00", "020000000001", "02:00:00:00:00:0g", "", "02:00-00:00:00:01"])
def test_a_mac_that_does_not_parse_is_refused(mac: str) -> None:
    with pytest.raises(Invalid, match="six octets"):
        check_mac("mac", mac)


def test_a_multicast_mac_is_refused() -> None:
    with pytest.raises(Invalid, match="multicast"):
        check_mac("mac", "01:00:5e:00:00:01")


def test_the_zero_mac_is_refused() -> None:
    with pytest.raises(Invalid, match="zero"):
        check_mac("mac", "00:00:00:00:00:00")


def test_a_mac_is_kept_in_lower_case_with_colons() -> None:
    assert check_mac("mac", "02-AB-00-00-00-0F") == "02:ab:00:00:00:0f"


def test_a_mac_survives_the_way_to_a_number_and_back() -> None:
    assert int_to_mac(mac_to_int("02:ab:00:00:00:0f")) == "02:ab:00:00:00:0f"


@pytest.mark.parametrize(
    "ip",
    [
        *("10.0.0", "10.0.0.1/33", "::g", "10.0.0.1/24", "224.0.0.1", "0.0.0.0", "", "ff02::1"),
        *("255.255.255.255", "fe80::1%eth0", "fe80::/64%eth0", "fe80::%1/64"),
    ],
)
def test_an_ip_that_is_no_unicast_address_or_prefix_is_refused(ip: str) -> None:
    with pytest.raises(Invalid, match="ip"):
        check_ip("ip", ip)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
def test_an_ip_is_kept_in_its_canonical_form(given: str, kept: str) -> None:
    assert check_ip("ip", given) == kept


@given(
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}\n?", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.sampled_from(["0.0.0.0", "0.0.0.1", "223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0"])
    | st.sampled_from(["255.255.255.254", "255.255.255.255", "256.0.0.1", "01.2.3.4", "1.2.3.4\n"])
)
def test_ipv4_addresses_are_taken_as_the_standard_library_takes_them(text: str) -> None:
    try:
        address = IPv4Address(text)
        right = not (address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255")
    except ValueError:
        right = False
    if right:
        assert check_ip("ip", text) == str(address)
    else:
        with pytest.raises(Invalid):
            check_ip("ip", text)


def test_a_port_needs_a_segment() -> None:
    with pytest.raises(Invalid, match="needs one segment"):
        Port(id="p", ifname="tap0")


def test_a_native_segment_needs_a_trunk() -> None:
    with pytest.raises(Invalid, match="native 'red': needs a trunk"):
        Port(id="p", ifname="tap0", segment="blue", native="red")


def test_a_port_is_either_trunk_or_in_one_segment() -> None:
    with pytest.raises(Invalid, match="names its segments"):
        Port(id="p", ifname="tap0", mode=Mode.TRUNK, segment="blue", trunk=(("blue", 10),))


def test_a_trunk_takes_a_vid_once() -> None:
    with pytest.raises(Invalid, match="twice"):
        Port(id="p", ifname="tap0", mode=Mode.TRUNK, trunk=(("blue", 10), ("red", 10)))


def test_a_trunks_native_segment_is_not_in_its_map() -> None:
    with pytest.raises(Invalid, match="tagged or native"):
        Port(id="p", ifname="tap0", mode=Mode.TRUNK, trunk=(("blue", 10),), native="blue")


def test_a_port_has_no_xdp_hook() -> None:
    with pytest.raises(Invalid, match="auto or tc"):
        Port(id="p", ifname="tap0", segment="blue", hook=Hook.XDP)


def test_a_mac_stands_once_in_a_port() -> None:
    with pytest.raises(Invalid, match="twice"):
        Port(id="p", ifname="tap0", segment="blue", macs=("02:00:00:00:00:01", "02-00-00-00-00-01"))


@pytest.mark.parametrize(("port", "vtep"), [(None, None), ("tap0", "192.0.2.1")])
def test_a_static_entry_has_one_place(port: str | None, vtep: str | None) -> None:
    with pytest.raises(Invalid, match="needs a port or a vtep"):
        StaticEntry(segment="blue", mac="02:00:00:00:00:01", port=port, vtep=vtep)


@pytest.mark.parametrize(
    ("given", "kept"), [("192.0.2.12", "192.0.2.12"), ("2001:DB8:0::C", "2001:db8::c"), ("169.254.7.7", "169.254.7.7")]
)
def test_a_vtep_is_kept_in_its_canonical_form(given: str, kept: str) -> None:
    assert Vtep(address=given, vnis=(7, 5)) == Vtep(address=kept, vnis=(5, 7))
    assert StaticEntry(segment="blue", mac="02:00:00:00:00:01", vtep=given).vtep == kept


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("hv2", "must be an IPv4 or IPv6 address"),
        ("192.0.2.0/24", "must be an IPv4 or IPv6 address"),
        ("224.0.0.1", "must be a unicast address"),
        ("ff02::1", "must be a unicast address"),
        ("0.0.0.0", "must be a unicast address"),
        ("::", "must be a unicast address"),
        ("255.255.255.255", "must be a unicast address"),
        ("127.0.0.1", "no other host's"),
        ("::1", "no other host's"),
        ("fe80::1", "can be routed"),
        ("fe80::1%eth0", "has no zone"),
        ("::ffff:192.0.2.1", "can be routed"),
    ],
)
def test_an_address_that_no_host_has_on_a_network_is_no_vtep(address: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Vtep(address=address)
    with pytest.raises(Invalid, match=why):
        Overlay(vtep=address, device="eth1")
    with pytest.raises(Invalid, match=why):
        StaticEntry(segment="blue", mac="02:00:00:00:00:01", vtep=address)


@pytest.mark.parametrize(("vnis", "why"), [((0,), "must be 1 to"), ((1 << 24,), "must be 1 to"), ((5, 5), "twice")])
def test_a_vtep_has_each_vni_once(vnis: tuple[int, ...], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Vtep(address="192.0.2.12", vnis=vnis)


@pytest.mark.parametrize(("address", "family", "overhead"), [("192.0.2.11", 4, 50), ("2001:db8::b", 6, 70)])
def test_a_tunnel_takes_bytes_of_the_underlay_by_its_family(address: str, family: int, overhead: int) -> None:
    overlay = Overlay(vtep=address, device="eth1")
    assert (overlay.family, overlay.overhead, Vtep(address=address).family) == (family, overhead, family)

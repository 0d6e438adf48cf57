"""vxagent.toml and desired state: what they mean, and what is refused with file, line and key."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vxagent.core.document import Contents
from vxagent.errors import HostError, Invalid
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import check_ifname, check_mac, check_name
from vxagent.model.port import Enforce, Hook, Mode, Port, Uplink
from vxagent.model.rate import Rate
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.model.vtep import Overlay, Vtep
from vxagent.protocol.requests import Ifname, Mac, Name
from vxagent.runtime import config
from vxagent.runtime.config import ClusterConfig, Config, connect_to, load_config, parse_config
from vxagent.runtime.desired import parse, to_toml
from vxagent.store.etcd import EtcdKv

# --- vxagent.toml --------------------------------------------------------------------------------


def test_an_empty_config_is_the_machine_s_name_and_defaults() -> None:
    assert parse_config("", "f") == Config(host=socket.gethostname(), metrics_listen=None, ageing_s=300)


def test_every_setting_is_taken() -> None:
    text = (
        'host = "hv1"\nmetrics_listen = "[::1]:9478"\nageing_s = 0\nfdb_entries = 1000000\naudit_s = 9\ngroup = "kvm"\n'
    )
    expected = Config(
        host="hv1", metrics_listen=("::1", 9478), ageing_s=0, fdb_entries=1_000_000, audit_s=9, group="kvm"
    )
    assert parse_config(text, "f") == expected


@pytest.mark.parametrize("port", ["9478", "'9478'", "'127.0.0.1:9478'"])
def test_a_port_alone_means_this_machine_itself(port: str) -> None:
    assert parse_config(f"metrics_listen = {port}", "f").metrics_listen == ("127.0.0.1", 9478)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "[::]"])
def test_other_addresses_have_to_be_written_out(address: str) -> None:
    expected = (address.strip("[]"), 9478)
    assert parse_config(f"metrics_listen = '{address}:9478'", "f").metrics_listen == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nhots = 'x'", "f:2: hots: is not a known key"),
        ("host = 1", "f:1: host: must be text, not a whole number"),
        ("host = 'a b'", "f:1: host 'a b': a name has 1 to 63"),
        ("ageing_s = '5m'", "f:1: ageing_s: must be a whole number, not text"),
        ("ageing_s = -1", "f:1: ageing_s -1: must be 0 to 1000000"),
        ("ageing_s = 1.5", "f:1: ageing_s: must be a whole number, not a number with a point"),
        ("fdb_entries = 0", "f:1: fdb_entries 0: must be 1 to 16777216"),
        ("audit_s = 0", "f:1: audit_s 0: must be 1 to 3600"),
        ("metrics_listen = ':9478'", "f:1: metrics_listen ':9478': must be PORT or ADDRESS:PORT"),
        ("metrics_listen = '::1:9478'", "f:1: metrics_listen '::1:9478': must be PORT or ADDRESS:PORT"),
        ("metrics_listen = 'a:65536'", "f:1: metrics_listen 'a:65536': must be PORT or ADDRESS:PORT"),
        ("metrics_listen = 'a:0'", "f:1: metrics_listen 'a:0': must be PORT or ADDRESS:PORT"),
        ("metrics_listen = 0", "f:1: metrics_listen '0': must be PORT or ADDRESS:PORT"),
        ("metrics_listen = true", "f:1: metrics_listen: must be "),
        ("group = ''", "f:1: group '': must be the name or number of a group"),
        ('group = "a\\nb"', "f:1: group 'a\\nb': must be the name or number of a group"),
        ("[cluster]\nname = 'x'\nendpoints = []", "f:3: endpoints: name at least one member of etcd"),
        (
            "[cluster]\nname = 'x'\nendpoints = ['a:1']",
            "f:3: endpoints 'a:1': must be http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "[cluster]\nname = 'x y'\nendpoints = ['http://a:1']",
            "f:2: name 'x y': a name has 1 to 63 letters",
        ),
        ("\n[overlay]\ndevice = 'eth1'", "f:2: vtep: is missing"),
        ("[overlay]\nvtep = '192.0.2.1'", "f:1: device: is missing"),
        ("[overlay]\nvtep = '192.0.2.1'\ndevice = 'eth1'\nmtu = 9000", "f:4: mtu: is not a known key"),
        ("[overlay]\nvtep = 1\ndevice = 'eth1'", "f:2: vtep: must be text, not a whole number"),
        ("[overlay]\nvtep = 'hv1'\ndevice = 'eth1'", "f:2: vtep 'hv1': must be an IPv4 or IPv6 address"),
        ("[overlay]\ndevice = 'eth1'\nvtep = '239.1.1.1'", "f:3: vtep '239.1.1.1': must be a unicast address"),
        ("[overlay]\nvtep = '192.0.2.1'\ndevice = 'a/b'", "f:3: device 'a/b': a device name has no"),
        ("[overlay]\nvtep = '192.0.2.1'\ndevice = 'lo'", "f:3: device 'lo': lo is the host's own"),
        ("[overlay]\nvtep = '192.0.2.1'\ndevice = 'eth1'\nttl = 0", "f:4: ttl 0: must be 1 to 255"),
        ("[overlay]\nvtep = '192.0.2.1'\ndevice = 'eth1'\nttl = 256", "f:4: ttl 256: must be 1 to 255"),
        ("host =", "f:1: not TOML: invalid value"),
    ],
)
def test_a_wrong_setting_is_refused_with_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_config(text, "f")
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "overlay"),
    [
        ("vtep = '192.0.2.11'\ndevice = 'eth1'", Overlay(vtep="192.0.2.11", device="eth1", ttl=64)),
        ("vtep = '2001:DB8::B'\ndevice = 'eth1'\nttl = 255", Overlay(vtep="2001:db8::b", device="eth1", ttl=255)),
    ],
)
def test_an_overlay_is_a_section_of_its_own(text: str, overlay: Overlay) -> None:
    assert parse_config(f"[overlay]\n{text}", "f").overlay == overlay


def test_the_default_file_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "vxagent.toml")
    assert load_config().host == socket.gethostname()
    (tmp_path / "vxagent.toml").write_text('host = "hv7"')
    assert load_config().host == "hv7"


def test_a_file_that_was_named_must_be_readable_text(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    with pytest.raises(HostError, match="is not there"):
        load_config(file)
    file.write_bytes(b"\xff")
    with pytest.raises(HostError, match="is not UTF-8 text"):
        load_config(file)
    with pytest.raises(HostError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


# --- desired state -------------------------------------------------------------------------------

EVERYTHING = """
[[segment]]
name = "blue"
tenant = "acme"
vlan = 10
vni = 5010
mtu = 9000
unknown_unicast = "drop"
multicast_snooping = true

[[segment]]
name = "red"
tenant = "acme"

[[uplink]]
ifname = "eth1"
hook = "tc"

[[vtep]]
address = "192.0.2.12"
vnis = [5010, 5020]

[[vtep]]
address = "192.0.2.13"

[[port]]
ifname = "tap0"
id = "vm0"
trunk = ["blue:10"]
native = "red"
mac = ["02:00:00:00:00:01"]
ip = ["10.0.0.1", "fd00::/64"]
isolated = true
trusted = true
hook = "tc"
max_macs = 5
rate_in = "100Mbit"
rate_out = "1Gbit,100kpps"
storm_broadcast = 100
storm_multicast = 200
storm_unknown = 300
dhcp_snoop = true
enforce = "shadow"

[[port]]
internal = "host0"
segment = "blue"

[[fdb]]
segment = "blue"
mac = "02:00:00:00:00:99"
port = "eth1"

[[fdb]]
segment = "blue"
mac = "02:00:00:00:00:98"
vtep = "192.0.2.12"
"""

CONTENTS = Contents(
    segments=(
        Segment(
            name="blue",
            tenant="acme",
            vlan=10,
            vni=5010,
            mtu=9000,
            unknown_unicast=UnknownUnicast.DROP,
            multicast_snooping=True,
        ),
        Segment(name="red", tenant="acme"),
    ),
    uplinks=(Uplink(ifname="eth1", hook=Hook.TC),),
    ports=(
        Port(
            id="vm0", ifname="tap0", mode=Mode.TRUNK, trunk=(("blue", 10),), native="red", macs=("02:00:00:00:00:01",),
            ips=("10.0.0.1", "fd00::/64"), isolated=True, trusted=True, hook=Hook.TC, max_macs=5,
            rate_in=Rate(bits=10**8), rate_out=Rate(bits=10**9, packets=10**5), storm_broadcast=100,
            storm_multicast=200, storm_unknown=300, dhcp_snoop=True, enforce=Enforce.SHADOW,
        ),
        Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue"),
    ),
    fdb=(
        StaticEntry(segment="blue", mac="02:00:00:00:00:99", port="eth1"),
        StaticEntry(segment="blue", mac="02:00:00:00:00:98", vtep="192.0.2.12"),
    ),
    vteps=(Vtep(address="192.0.2.12", vnis=(5010, 5020)), Vtep(address="192.0.2.13")),
)  # fmt: skip


def test_every_key_of_a_document_is_taken() -> None:
    assert parse(EVERYTHING, "f") == CONTENTS


def test_export_writes_what_was_given_and_leaves_defaults_out() -> None:
    assert to_toml(CONTENTS) == EVERYTHING.lstrip("\n")


def test_an_empty_document_asks_for_nothing() -> None:
    assert parse("", "f") == Contents()
    assert to_toml(Contents()) == ""


BLUE = '[[segment]]\nname = "blue"\ntenant = "acme"\n'
PORT = '[[port]]\nifname = "tap0"\nsegment = "blue"\n'
VTEP = '[[vtep]]\naddress = "192.0.2.12"\n'
FDB = '[[fdb]]\nsegment = "blue"\nmac = "02:00:00:00:00:99"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{BLUE}vlan = 'ten'\n", "f:4: vlan: must be a whole number, not text"),
        (f"{BLUE}vlan = true\n", "f:4: vlan: must be a whole number, not true or false"),
        (f"{BLUE}vlan = 0\n", "f:4: vlan 0: must be 1 to 4094"),
        (f"{BLUE}vni = 16777216\n", "f:4: vni 16777216: must be 1 to 16777215"),
        (f"{BLUE}mtu = 1\n", "f:4: mtu 1: must be 576 to 65535"),
        (f"{BLUE}colour = 'red'\n", "f:4: colour: is not a known key"),
        (f"{BLUE}unknown_unicast = 'maybe'\n", "f:4: unknown_unicast: must be flood or drop"),
        (f"{BLUE}{BLUE}", "f:4: segment: blue stands in the document twice"),
        ("[[segment]]\nname = 'blue'", "f:1: tenant: is missing"),
        ("[[segment]]\nname = 'b l'\ntenant = 'acme'", "f:2: name 'b l': a name has"),
        ("[[segment]]\nname = 'b'\ntenant = ''", "f:3: tenant '': a name has"),
        ("[segment]\nname = 'blue'", "f:1: segment: must be a list, not a table"),
        ("segment = [\n3]", "f:2: segment: must be a table, not a whole number"),
        ("\n[[segmnet]]", "f:2: segmnet: is not a known key"),
        (f"{PORT}mac = '02:00:00:00:00:01'", "f:4: mac: must be a list, not text"),
        (f"{PORT}mac = [\n'02:00:00:00:00:01',\n3]", "f:6: mac: must be text, not a whole number"),
        (f"{PORT}mac = [\n'02:00:00:00:00:01',\n'03:00:00:00:00:00']", "f:6: mac '03:00:00:00:00:00': a multicast MAC"),
        (f"{PORT}ip = [\n'10.0.0.1',\n\n'10.0.0.300']", "f:7: ip '10.0.0.300': must be an IPv4 or IPv6 address"),
        (f"{PORT}hook = 'xdp'", "f:4: hook 'xdp': a port takes auto or tc"),
        (f"{PORT}hook = 'quick'", "f:4: hook: must be auto or tc or xdp"),
        ("[[port]]\nifname = 'tap0'\ntrunk = [\n'a:1',\n'b:4095']", "f:5: trunk 4095: must be 1 to 4094"),
        (f"{PORT}trunk = ['red:1']", "f:3: segment 'blue': a trunk port names its segments in"),
        (f"{PORT}trunk = ['blue']", "f:4: trunk 'blue': must be SEGMENT:VID such as blue:10"),
        (f"{PORT}internal = 'host0'", "f:4: internal 'host0': a port either has a device or is internal"),
        (f"{PORT}rate_up = 1000", "f:4: rate_up: is not a known key"),
        (f"{PORT}rate_in = 1000", "f:4: rate_in: must be text, not a whole number"),
        (f"{PORT}rate_in = '1Gb'", "f:4: rate_in '1Gb': must be bit/s such as 100Mbit"),
        (f"{PORT}storm_broadcast = 0", "f:4: storm_broadcast 0: must be 1 to"),
        (f"{PORT}max_macs = -1", "f:4: max_macs -1: must be 0 to"),
        (f"{PORT}learn_rate = -1", "f:4: learn_rate -1: must be 0 to"),
        (f"{PORT}\n{PORT}", "f:5: port: tap0 stands in the document twice"),
        ("[[port]]\nifname = 'a/b'\nsegment = 'blue'", "f:2: ifname 'a/b': a device name has no blanks"),
        ("[[port]]\nsegment = 'blue'", "f:1: ifname: a port needs a device, or internal"),
        ("[[port]]\nifname = 'tap0'", "f:1: segment: access port tap0 needs one segment"),
        ("[[port]]\nifname = 'tap0'\ntrunk = ['a:1', 'a:2']", "f:3: trunk 'a': is given twice"),
        ("[[port]]\nifname = 'tap0'\ntrunk = ['a:1']\nnative = 'a'", "f:4: native 'a': is in the trunk's map already"),
        ("[[uplink]]\nifname = 'a name too long'", "f:2: ifname 'a name too long': a device name has"),
        ("[[fdb]]\nsegment = 'blue'\nmac = 'x'\nport = 'tap0'", "f:3: mac 'x': a MAC has six octets"),
        ("[[fdb]]\nsegment = 'blue'\nmac = '02:00:00:00:00:01'", "f:3: mac '02:00:00:00:00:01': needs a port"),
        ("[[vtep]]\nvnis = [1]", "f:1: address: is missing"),
        ("[[vtep]]\naddress = 'hv2'", "f:2: address 'hv2': must be an IPv4 or IPv6 address"),
        ("[[vtep]]\naddress = '192.0.2.1'\nvnis = [\n1,\n0]", "f:5: vnis 0: must be 1 to 16777215"),
        ("[[vtep]]\naddress = '192.0.2.1'\nvnis = [\n5,\n5]", "f:4: vnis '5': is given twice"),
        ("[[vtep]]\naddress = '192.0.2.1'\nvni = 1", "f:3: vni: is not a known key"),
        (f"{VTEP}\n{VTEP}", "f:4: vtep: 192.0.2.12 stands in the document twice"),
        (f"{FDB}vtep = '::'", "f:4: vtep '::': must be a unicast address"),
        ("[[port]\n", "f:1: not TOML:"),
    ],
)
def test_a_wrong_document_is_refused_with_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(text, "f")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True)
IFNAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/:"), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 15
)
MACS = (
    st.integers(1, (1 << 40) - 1)
    .map(lambda n: f"02:{n:010x}")
    .map(lambda raw: ":".join((raw[:2], *(raw[i : i + 2] for i in range(3, 13, 2)))))
)


ADDRESSES = st.builds(str, st.ip_addresses(network="192.0.2.0/24") | st.ip_addresses(network="2001:db8::/64"))
VNIS = st.integers(1, (1 << 24) - 1)


@st.composite
def contents(draw: st.DrawFn) -> Contents:
    segments = draw(
        st.lists(
            st.builds(
                Segment, name=NAMES, tenant=NAMES, vlan=st.none() | st.integers(1, 4094),
                vni=st.none() | st.integers(1, 1 << 20), mtu=st.integers(576, 65535),
                unknown_unicast=st.sampled_from(UnknownUnicast),
                multicast_snooping=st.booleans(),
            ),
            max_size=4, unique_by=lambda s: s.name,
        )
    )  # fmt: skip
    common = {
        "id": NAMES, "ifname": IFNAMES, "macs": st.lists(MACS, unique=True, max_size=3).map(tuple),
        "ips": st.lists(st.ip_addresses(v=4, network="10.0.0.0/8").map(str), unique=True, max_size=3).map(tuple),
        "isolated": st.booleans(), "trusted": st.booleans(), "hook": st.sampled_from([Hook.AUTO, Hook.TC]),
        "max_macs": st.integers(0, 4096), "learn_rate": st.none() | st.integers(1, 10**9),
        "rate_in": st.none() | st.builds(Rate, bits=st.integers(1_000, 10**12)),
        "rate_out": st.none() | st.builds(Rate, bits=st.integers(1_000, 10**12), packets=st.integers(1, 10**9)),
        "storm_unknown": st.none() | st.integers(1, 10**9), "enforce": st.sampled_from(Enforce),
        "dhcp_snoop": st.booleans(),
    }  # fmt: skip
    access = st.builds(Port, segment=NAMES, mode=st.sampled_from([Mode.ACCESS, Mode.INTERNAL]), **common)
    trunk = st.builds(
        Port, mode=st.just(Mode.TRUNK), native=st.none() | NAMES.map(lambda n: f"N{n}"),
        trunk=st.dictionaries(NAMES.map(lambda n: f"T{n}"), st.integers(1, 4094), min_size=1, max_size=3)
        .filter(lambda vids: len(set(vids.values())) == len(vids)).map(lambda vids: tuple(vids.items())), **common,
    )  # fmt: skip
    return Contents(
        segments=tuple(segments),
        uplinks=tuple(draw(st.lists(st.builds(Uplink, ifname=IFNAMES), max_size=2, unique_by=lambda u: u.ifname))),
        vteps=tuple(
            draw(
                st.lists(
                    st.builds(Vtep, address=ADDRESSES, vnis=st.lists(VNIS, max_size=3, unique=True).map(tuple)),
                    max_size=2, unique_by=lambda v: v.address,
                )
            )
        ),
        ports=tuple(draw(st.lists(access | trunk, max_size=4, unique_by=lambda p: p.id))),
        fdb=tuple(
            draw(
                st.lists(
                    st.builds(StaticEntry, segment=NAMES, mac=MACS, port=NAMES, vtep=st.none())
                    | st.builds(StaticEntry, segment=NAMES, mac=MACS, port=st.none(), vtep=ADDRESSES),
                    max_size=3, unique_by=lambda e: (e.segment, e.mac),
                )
            )
        ),
    )  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])  # a whole document takes a busy machine long
@given(contents())
def test_what_is_exported_means_the_same_again(made: Contents) -> None:
    assert parse(to_toml(made), "f") == made


async def test_hosts_are_shared_out_among_the_members_of_the_engine() -> None:
    members = tuple(f"http://127.0.0.1:{port}" for port in (1, 2, 3))
    asked_first = set()
    for _ in range(60):  # all begin with two of them by chance once in 10^10 times
        kv = connect_to(ClusterConfig(name="test", endpoints=members))
        assert isinstance(kv, EtcdKv)
        assert sorted(kv.endpoints) == sorted(members)
        asked_first.add(kv.endpoints[0])
        await kv.close()
    assert asked_first == set(members)


# --- the schema says what the model takes --------------------------------------------------------


@pytest.mark.parametrize(("kind", "check"), [(Name, check_name), (Ifname, check_ifname), (Mac, check_mac)])
@given(data=st.data())
def test_what_matches_a_pattern_of_the_schema_is_right(
    kind: object, check: Callable[[str, str], str], data: st.DataObject
) -> None:
    [meta] = kind.__metadata__  # type: ignore[attr-defined]  # an Annotated
    ascii_only = st.characters(codec="ascii")  # no pattern says which other characters are blanks
    value = data.draw(st.from_regex(meta.extra_json_schema["pattern"], fullmatch=True, alphabet=ascii_only))
    assume(value not in (".", "..", "00:00:00:00:00:00"))  # no pattern says that well
    assert check("it", value)

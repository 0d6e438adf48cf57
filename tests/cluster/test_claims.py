"""What hosts claim in the engine is theirs, and who comes second is told whose it is.

host1 ── host2 ── host3 ── etcd      each test has segments, VMs and keys of its own
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from support.clustered import Clustered, cluster_of, eventually, migrate
from support.fleet import Host
from support.stored import Stored
from vxagent.lab.vm import VethVm
from vxagent_cli.client import AgentSaysNo


def locked(host: Host, segment: str, *ips: str) -> VethVm:
    """A VM whose port lists its MAC, and these addresses."""
    vm = host.veth(host.unique("v"), segment)
    host.client.change("PATCH", "v1", "ports", vm.port, body={"mac": [vm.mac], "ip": list(ips)})
    return vm


def names(host: Host, kind: str, key: str) -> list[str]:
    return [row[key] for row in host.client.get("v1", kind)]


def test_every_host_lists_all_hosts(fleet: Clustered) -> None:
    segment = fleet.new_segment()
    one, two, _ = fleet.hosts
    before = {row["host"]: row["ports"] for row in one.client.get("v1", "hosts")}
    two.veth(two.unique("v"), segment)
    for host in fleet.hosts:
        rows = host.client.get("v1", "hosts")
        known = [(row["host"], row["vtep"], row["live"]) for row in rows]
        assert known == [(each.name, each.vtep, True) for each in fleet.hosts]
        assert {row["host"]: row["ports"] - before[row["host"]] for row in rows} == {"host1": 0, "host2": 1, "host3": 0}


def test_every_host_lists_all_bindings(fleet: Clustered) -> None:
    segment = fleet.new_segment()
    one, two, _ = fleet.hosts
    first, second = locked(one, segment, "10.9.9.1", "fd00::/64"), two.veth(two.unique("v"), segment)
    wanted = [
        {"port": first.port, "macs": [first.mac], "ips": ["10.9.9.1", "fd00::/64"], "owner": "host1"},
        {"port": second.port, "macs": [], "ips": [], "owner": "host2"},
    ]
    same = {"segments": [segment], "next": None, "phase": "bound", "epoch": 1}
    for host in fleet.hosts:
        rows = [row for row in host.client.get("v1", "bindings") if row["port"] in (first.port, second.port)]
        assert rows == [row | same for row in wanted]
    one.client.change("DELETE", "v1", "ports", first.port)
    assert fleet.binding(first.port) is None
    assert not [key for key, (value, _) in fleet.stored.all().items() if first.port in [*key.split("/"), value]]


def test_a_port_id_is_one_hosts(fleet: Clustered) -> None:
    segment = fleet.new_segment()
    one, two, _ = fleet.hosts
    vm = one.veth(one.unique("v"), segment)
    with pytest.raises(AgentSaysNo, match=f"port {vm.port} is bound on host host1; .*--id"):
        two.attach(vm.port, segment)
    assert vm.port not in names(two, "ports", "id")


@pytest.mark.parametrize(
    ("locks", "said"),
    [
        ({"mac": ["02:00:00:00:0c:01"]}, "MAC 02:00:00:00:0c:01"),
        ({"ip": ["10.7.0.1"]}, "IP 10.7.0.1"),
        ({"ip": ["fd07::1"]}, "IP fd07::1"),
    ],
    ids=["mac", "ipv4", "ipv6"],
)
def test_a_second_claim_is_refused_and_names_the_holder(
    fleet: Clustered, locks: dict[str, list[str]], said: str
) -> None:
    segment, other = fleet.new_segment(), fleet.new_segment()
    one, two, _ = fleet.hosts
    holder, rival = one.unique("v"), two.unique("v")
    one.attach(holder, segment, mac=["02:00:00:00:0c:01"], ip=["10.7.0.1", "fd07::1"])
    before = fleet.stored.all()
    with pytest.raises(AgentSaysNo, match=f"{said} is port {holder}'s on host host1 \\(segment {segment}\\)"):
        two.attach(rival, segment, **locks)
    assert rival not in names(two, "ports", "id")
    assert fleet.stored.all() == before
    two.attach(rival, other, **locks)  # in another segment it is another's to have
    one.client.change("DELETE", "v1", "ports", holder)
    two.attach(two.unique("v"), segment, **locks)


def test_a_change_that_would_take_what_is_anothers_changes_nothing(fleet: Clustered) -> None:
    segment = fleet.new_segment()
    one, two, _ = fleet.hosts
    holder, other = one.unique("v"), two.unique("v")
    one.attach(holder, segment, ip=["10.8.0.1"])
    two.attach(other, segment, ip=["10.8.0.2"])
    before = fleet.stored.all()
    with pytest.raises(AgentSaysNo, match=f"IP 10.8.0.1 is port {holder}'s on host host1"):
        two.client.change("PATCH", "v1", "ports", other, body={"ip": ["10.8.0.1", "10.8.0.3"]})
    assert two.show(other)["ips"] == ["10.8.0.2"]
    assert fleet.stored.all() == before


def test_a_vni_is_one_segments(fleet: Clustered) -> None:
    one, two, _ = fleet.hosts
    segment = one.unique("s")
    vni = fleet.segment(segment, one)
    before = fleet.stored.all()
    with pytest.raises(AgentSaysNo, match=f"vni {vni} is segment {segment}'s in cluster lab"):
        two.segment("theirs", tenant="umbrella", vni=vni)
    assert "theirs" not in names(two, "segments", "name")
    assert fleet.stored.all() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tenant": "umbrella"}, "has tenant acme on host1, not tenant umbrella"),
        ({"vni": 7777}, r"has vni \d+ on host1, not vni 7777"),
        ({"vlan": 77}, "has vlan none on host1, not vlan 77"),
        ({"mtu": 1400}, "has mtu 1450 on host1, not mtu 1400"),
    ],
    ids=["tenant", "vni", "vlan", "mtu"],
)
def test_a_segment_is_the_same_on_all_hosts(fleet: Clustered, change: dict[str, Any], said: str) -> None:
    one, two, _ = fleet.hosts
    segment = one.unique("s")
    vni = fleet.segment(segment, one)
    with pytest.raises(AgentSaysNo, match=f"segment {segment} {said}"):
        two.segment(segment, **{"vni": vni, **change})
    assert segment not in names(two, "segments", "name")


def test_the_last_host_takes_the_segment_along(fleet: Clustered) -> None:
    one, two, three = fleet.hosts
    segment = one.unique("s")
    vni = fleet.segment(segment, one, two)
    one.client.change("DELETE", "v1", "segments", segment)
    assert fleet.stored.read(f"vni/{vni}") == segment
    eventually(lambda: not two.client.get("v1", "segments", segment)["vteps"], "host2 knows that host1 has left")
    two.client.change("DELETE", "v1", "segments", segment)
    assert not [key for key, (value, _) in fleet.stored.all().items() if segment in [*key.split("/"), value.strip('"')]]
    three.segment(three.unique("s"), tenant="umbrella", vni=vni)


@pytest.mark.parametrize(
    ("number", "twin", "said"),
    [
        (11, {"name": "host1"}, "another host with VTEP 192.0.2.1 is alive as host1 in cluster lab"),
        (12, {"vtep": "192.0.2.1"}, "VTEP 192.0.2.1 is host host1's in cluster lab"),
    ],
    ids=["name", "vtep"],
)
def test_no_two_hosts_have_one_name_or_one_vtep(fleet: Clustered, number: int, twin: dict[str, str], said: str) -> None:
    before = fleet.stored.all()
    late = fleet.make_host(number, f"late{number}", fleet.config(number, **twin))
    late.agent.up()
    eventually(lambda: said in late.agent.log(), "its log says who has it")
    with pytest.raises(AgentSaysNo, match=said):
        late.segment("blue", vni=70000)
    assert cluster_of(late) == "disconnected"
    assert fleet.stored.all() == before
    fleet.connected()
    late.agent.cli("down")
    assert fleet.stored.all() == before


def test_a_schema_of_another_version_is_refused_and_left_untouched(fleet: Clustered) -> None:
    later = Stored(fleet.etcd, "later")
    for key, value in {"schema": '{"version": 2, "id": "x"}', "host/host9": '{"where": "elsewhere"}'}.items():
        later.put(key, value)
    before = later.all()
    early = fleet.make_host(21, "early", fleet.config(21, cluster="later"))
    early.agent.up()
    eventually(lambda: "version" in early.agent.log(), "its log says why")
    with pytest.raises(AgentSaysNo, match="version"):
        early.segment("blue", vni=70000)
    early.agent.cli("stop")
    early.agent.up()
    eventually(lambda: early.agent.log().count("version") > 1, "the next agent's too")
    early.agent.cli("down")
    assert later.all() == before


# What does not parse


@pytest.fixture
def strange(fleet: Clustered) -> Iterator[tuple[str, dict[str, str]]]:
    """A segment, and keys that its hosts follow and cannot read."""
    segment = fleet.new_segment()
    keys = {
        f"fdb/{segment}/ghost": "{no JSON",
        f"fdb/{segment}/late": '{"o": "host2", "p": "flying", "e": 1}',
        f"fdb/{segment}/odd/one": '"what is this?"',
        f"has/{segment}/host1/too": "{}",
        "host/host8": '{"vtep": "not an address"}',
    }
    for key, value in keys.items():
        fleet.stored.put(key, value)
    yield segment, keys
    for key in keys:
        fleet.stored.delete(key)


def doctor(host: Host) -> str:
    return "\n".join(row["what"] for row in host.client.get("v1", "doctor"))


def logs(host: Host, text: str) -> bool:
    return text in host.agent.log()


def test_what_does_not_parse_is_skipped_and_reported(fleet: Clustered, strange: tuple[str, dict[str, str]]) -> None:
    segment, keys = strange
    one, two, three = fleet.hosts
    vm = locked(one, segment)
    fleet.known(segment, vm.mac, one)
    for host in (two, three):
        for key in keys:
            eventually(partial(logs, host, key), f"the log of {host.name} tells of {key}")
        said = doctor(host)
        assert all(key in said for key in keys), said
        assert cluster_of(host) == "connected"
    assert {key: fleet.stored.get(key) for key in keys} == keys
    for key in keys:
        fleet.stored.delete(key)
    eventually(lambda: "cannot be read" not in doctor(three), "nothing is unreadable any more")


def test_a_binding_that_does_not_parse_is_left_to_people(fleet: Clustered, request: pytest.FixtureRequest) -> None:
    segment = fleet.new_segment()
    one, two, _ = fleet.hosts
    vm = locked(one, segment)
    whole = fleet.stored.get(f"port/{vm.port}")
    assert whole is not None
    request.addfinalizer(partial(fleet.stored.put, f"port/{vm.port}", whole))
    fleet.stored.put(f"port/{vm.port}", "{")
    assert fleet.binding(vm.port) is None
    asked: list[Callable[[], object]] = [
        partial(migrate, two, "prepare", vm.port),
        partial(one.client.change, "PATCH", "v1", "ports", vm.port, body={"ip": ["10.9.0.1"]}),
    ]
    for ask in asked:
        with pytest.raises(AgentSaysNo, match=f"port {vm.port} cannot be read .*port/{vm.port}"):
            ask()
    assert fleet.stored.get(f"port/{vm.port}") == "{"
    assert one.state(vm.port) == "up"

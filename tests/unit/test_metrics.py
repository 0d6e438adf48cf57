"""Prometheus metrics: names, labels, values, and how many there are."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.agents import FakeHost
from vxagent.core.switch import Draft
from vxagent.datapath.abi import DropKind, Reason
from vxagent.datapath.base import Drop, Learning, Traffic
from vxagent.errors import HostError
from vxagent.model.port import Mode, Port, Uplink
from vxagent.model.segment import Segment
from vxagent.runtime.metrics import create_metrics_app

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def make(draft: Draft) -> None:
    draft.add_segment(Segment(name="blue", tenant="acme", vlan=10))
    draft.attach_port(Port(id="vm0", ifname="tap0", segment="blue"))
    draft.attach_port(Port(id="vm1", ifname="tap1", mode=Mode.TRUNK, trunk=(("blue", 10),)))
    draft.attach_port(Port(id="tap9", ifname="tap9", segment="blue"))
    draft.add_uplink(Uplink(ifname="eth1"))


async def scrape(host: FakeHost, path: str = "/metrics") -> httpx.Response:
    """What is served at metrics_listen."""
    agent = host.agent()
    await agent.start()
    await agent.change(make)
    state = agent.switch.state
    port = state.handle_of_port("vm0")
    host.datapath.counted[state.counters_of("vm0")["blue"]] = Traffic(
        packets=(1, 2, 4, 8), bytes=(10, 20, 40, 80), tx_packets=3, tx_bytes=300, copies=9
    )
    host.datapath.learning_of[port] = Learning(entries=5, limited=6, moved=7, held=8)
    host.datapath.suppressed |= {port: 12, state.numbers.number("port", "eth1"): 13}
    host.datapath.dropped = [
        Drop(port=port, segment=1, reason=Reason.MTU_EXCEEDED, packets=16, bytes=1600),
        Drop(port=port, segment=0, reason=Reason.VLAN_DENIED, packets=32, bytes=3200),
        Drop(port=port, segment=1, reason=Reason.RATE_LIMITED, packets=64, bytes=6400, kind=DropKind.COPY),
        Drop(port=port, segment=1, reason=Reason.ARP_SPOOF, packets=128, bytes=12800, kind=DropKind.SHADOW),
    ]
    host.links.drops = {10: 11}
    transport = httpx.ASGITransport(app=create_metrics_app(agent))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get(path)
    await agent.stop()
    return response


@pytest.fixture
def text() -> str:
    return asyncio.run(scrape(FakeHost())).text


@pytest.fixture
def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


AT = {"port": "vm0", "segment": "blue", "tenant": "acme"}


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("vxagent_port_receive_packets_total", AT, 31),
        ("vxagent_port_receive_bytes_total", AT, 1750),
        ("vxagent_port_transmit_packets_total", AT, 3),
        ("vxagent_port_transmit_bytes_total", AT, 300),
        ("vxagent_port_copies_total", AT, 9),
        ("vxagent_port_verdict_packets_total", AT | {"verdict": "forwarded"}, 1),
        ("vxagent_port_verdict_packets_total", AT | {"verdict": "to_host"}, 8),
        ("vxagent_drop_packets_total", AT | {"reason": "mtu_exceeded"}, 16),
        ("vxagent_copy_drop_packets_total", AT | {"reason": "rate_limited"}, 64),
        ("vxagent_copy_drop_bytes_total", AT | {"reason": "rate_limited"}, 6400),
        ("vxagent_shadow_drop_packets_total", AT | {"reason": "arp_spoof"}, 128),
        ("vxagent_shadow_drop_bytes_total", AT | {"reason": "arp_spoof"}, 12800),
        ("vxagent_drop_bytes_total", AT | {"reason": "mtu_exceeded"}, 1600),
        ("vxagent_drop_packets_total", {"port": "vm0", "segment": "", "tenant": "", "reason": "vlan_denied"}, 32),
        ("vxagent_port_receive_packets_total", {"port": "vm0", "segment": "", "tenant": ""}, 32),
        ("vxagent_port_receive_packets_total", {"port": "eth1", "segment": "blue", "tenant": "acme"}, 0),
        ("vxagent_port_learned_macs", {"port": "vm0"}, 5),
        ("vxagent_port_learn_limited_packets_total", {"port": "vm0"}, 6),
        ("vxagent_port_moved_macs_total", {"port": "vm0"}, 7),
        ("vxagent_port_held_macs_total", {"port": "vm0"}, 8),
        ("vxagent_port_events_suppressed_total", {"port": "vm0"}, 12),
        ("vxagent_port_events_suppressed_total", {"port": "eth1"}, 13),
        ("vxagent_port_egress_failed_packets_total", {"port": "vm0"}, 11),
        ("vxagent_port_up", {"port": "vm0"}, 1),
        ("vxagent_port_up", {"port": "tap9"}, 0),
        ("vxagent_ports", {}, 3),
        ("vxagent_segments", {}, 1),
        ("vxagent_fdb_entries", {}, 0),
        ("vxagent_map_entries", {"map": "drops"}, 4),
    ],
)
def test_a_metric_has_its_value(samples: Samples, name: str, at: dict[str, str], value: float) -> None:
    assert samples[name, labels(**at)] == value


def test_the_verdicts_and_drops_of_a_port_add_up_to_what_came_in(samples: Samples) -> None:
    def total(name: str) -> float:
        return sum(value for (found, at), value in samples.items() if found == name and ("port", "vm0") in at)

    came_in = total("vxagent_port_receive_packets_total")
    assert came_in == total("vxagent_port_verdict_packets_total") + total("vxagent_drop_packets_total") == 63


def test_every_name_is_ours_and_counters_say_so(text: str) -> None:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert all(name.startswith("vxagent_") for name in kinds)
    assert {name for name, kind in kinds.items() if kind == "counter"} == {n for n in kinds if n.endswith("_total")}
    assert "vxagent_process_resident_memory_bytes" in kinds
    assert "vxagent_build_info" in kinds


def test_labels_are_bounded_by_ports_and_reasons(samples: Samples) -> None:
    known = {"port", "segment", "tenant", "reason", "verdict", "map", "version", "object", "hook"}
    assert {label for (name, at), _ in samples.items() for label, _ in at} <= known


def test_nothing_but_metrics_is_served_over_tcp() -> None:
    assert asyncio.run(scrape(FakeHost(), "/v1/ports")).status_code == 404


def test_the_content_type_is_prometheus_s() -> None:
    assert asyncio.run(scrape(FakeHost())).headers["content-type"].startswith("text/plain; version=")


def test_what_cannot_be_read_is_said_in_a_line() -> None:
    def broken() -> list[Drop]:
        raise HostError("map drops cannot be read")

    class Broken(FakeHost):
        def __init__(self) -> None:
            super().__init__()
            self.datapath.drops = broken  # type: ignore[method-assign]  # a fault

    response = asyncio.run(scrape(Broken()))
    assert (response.status_code, response.text) == (503, "map drops cannot be read\n")

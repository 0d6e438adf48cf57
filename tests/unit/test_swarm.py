"""What the simulated hosts of `make scale` are measured by."""

from __future__ import annotations

import json

import pytest

from support.spread import Spread
from support.swarm_layout import Layout, due_us


def test_a_spread_knows_shares_within_its_buckets_also_when_it_was_put_together() -> None:
    halves = [Spread(), Spread()]
    for us in range(1000, 101_000, 100):
        halves[us // 100 % 2].add(us)
    whole = Spread(json.loads(json.dumps(halves[0].counts())))
    whole.take(halves[1])
    assert len(whole) == 1000
    assert whole.ms(0.5) == pytest.approx(51, rel=0.02)
    assert whole.ms(0.99) == pytest.approx(100, rel=0.02)


def test_segments_have_the_hosts_that_they_are_to_have_and_hosts_the_ports() -> None:
    layout = Layout(hosts=200, ports=7, segments=3)
    assert {len(hosts) for hosts in layout.members.values()} == {50}
    assert len(layout.members) == 12
    assert all(len(layout.segments_of(host)) == 3 for host in range(200))
    assert sum(map(layout.count_in, layout.members)) == layout.all_ports
    for name in layout.members:
        told = list(layout.ports_in(name))
        assert len(told) == layout.count_in(name)
        assert len({port.macs for _, port in told}) == len({port.ips for _, port in told}) == len(told)


def test_the_id_of_a_new_port_says_when_it_was_due() -> None:
    layout = Layout(hosts=2, ports=1, segments=1, share=2)
    port = layout.new_port(1, 5000, "s0-0", 123456)
    assert (due_us(port.id), due_us("vm1-2")) == (123456, None)

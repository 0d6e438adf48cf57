"""Whether a host is there: what the network says of it.

here ── router ── 192.0.2.0/24
"""

from __future__ import annotations

import asyncio

import pytest

from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World
from vxagent.runtime.silence import is_there

HERE, ROUTER, NOBODY = "10.0.0.1", "10.0.0.2", "10.0.0.9"
WITHIN_S = 0.5
ARP_S = 10.0  # longer than it takes


@pytest.fixture
def here(world: World) -> Namespace:
    """With a router that has a route of each kind."""
    here, router = world.namespace("here"), world.namespace("router")
    here.ip(*f"link add to type veth peer name from netns {router.name}".split())
    router.sysctl("net/ipv4/ip_forward", 1)
    router.sysctl("net/ipv4/icmp_ratelimit", 0)
    here.ip_batch([f"address add {HERE}/24 dev to", "link set to up"])
    router.ip_batch([f"address add {ROUTER}/24 dev from", "link set from up"])
    here.ip_batch([f"route add 192.0.2.0/24 via {ROUTER}"])
    routes = {"unreachable": 10, "prohibit": 11, "blackhole": 12}
    router.ip_batch([f"route add {kind} 192.0.2.{number}" for kind, number in routes.items()])
    router.ip_batch(["address add 192.0.2.1/32 dev lo"])
    return here


@pytest.mark.parametrize(
    ("vtep", "within_s", "there"),
    [
        ("192.0.2.1", ARP_S, True),
        ("192.0.2.10", ARP_S, False),
        (NOBODY, ARP_S, False),
        ("192.0.2.11", ARP_S, None),
        ("192.0.2.12", WITHIN_S, None),
        ("198.51.100.1", ARP_S, None),
    ],
    ids=["refuses", "unreachable", "no ARP", "forbidden", "dropped", "no route here"],
)
def test_what_the_network_says_of_a_host(here: Namespace, vtep: str, within_s: float, there: bool | None) -> None:
    with here.entered():
        assert asyncio.run(is_there(vtep, within_s=within_s)) is there

"""`vxagent doctor` of a switch that is not alone."""

from __future__ import annotations

from support.lan import Lan
from vxagent.lab.agent import Agent

FOREIGN = "runs a tcx program of somebody else"


def test_two_switches_at_one_device_are_told_of_each_other(lan: Lan) -> None:
    lan.segment("blue")
    lan.veth("va", "blue")
    lan.veth("vb", "blue")
    assert FOREIGN not in lan.agent.cli("doctor", check=False).stdout
    other = Agent(lan.world.directory(), lan.switch)
    lan.world.cleanup.callback(other.end)
    other.up()
    other.cli("segment", "add", "red", "--tenant", "acme")
    other.cli("port", "attach", "va", "--segment", "red")
    for agent in (lan.agent, other):
        said = agent.cli("doctor", check=False).stdout
        assert f"device va {FOREIGN}" in said
        assert f"device vb {FOREIGN}" not in said

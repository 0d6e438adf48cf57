"""A host that is dead: another takes its ports, the cluster forgets it, and it registers anew when it comes back.

  born ◄──── watcher        born is the VM of host 2, started anew at another device: its own is somebody else's there
host1     host3     host2 is dead
"""

from __future__ import annotations

import pytest

from support.clustered import Clustered, eventually, where
from support.fleet import UNDERLAY, Host
from support.lan import assert_connected
from vxagent_cli.client import AgentSaysNo


@pytest.mark.timeout(240)
def test_a_dead_host_is_evacuated_and_forgotten_and_registers_anew(fleet: Clustered) -> None:
    one, two, three = fleet.hosts
    segment = fleet.new_segment()
    watcher, vm = three.veth(three.unique("v"), segment), two.veth(two.unique("v"), segment)
    two.client.change("PATCH", "v1", "ports", vm.port, body={"mac": [vm.mac]})
    own, other = two.unique("m"), one.unique("o")
    two.client.change("POST", "v1", "ports", body={"internal": own, "segment": segment})
    one.attach(vm.port, segment, id=other)
    fleet.known(segment, vm.mac, two)
    with pytest.raises(AgentSaysNo, match="host host2 is alive"):
        one.client.change("POST", "v1", "hosts", "host2", "forget")
    two.agent.kill()
    two.switch.ip("link", "set", UNDERLAY, "down")
    eventually(lambda: fleet.stored.get("live/host2") is None, "its session is over")

    before = fleet.stored.all("port")
    in_use = f"port {vm.port} cannot have device {vm.port} on host host1: it is port {other}'s; .*--ifname {vm.port}="
    with pytest.raises(AgentSaysNo, match=in_use):
        one.client.change("POST", "v1", "hosts", "host2", "evacuate")
    with pytest.raises(AgentSaysNo, match="2 ports are bound on host host2"):
        one.client.change("POST", "v1", "hosts", "host2", "forget")
    assert fleet.stored.all("port") == before
    born = one.veth(one.unique("v"), None, mac=vm.mac, address=vm.address)
    taken = [f"port {port} is here now" for port in (two.probe.port, vm.port)]
    left = f"port {own} stays host host2's own, until `vxagent host forget host2`"
    assert said(one, "evacuate", "host2", "--ifname", f"{vm.port}={born.port}") == [*sorted(taken), left]
    fleet.known(segment, vm.mac, one, three)
    assert_connected(watcher, born)

    assert said(one, "forget", "host2") == [f"port {own}, host host2's own, is gone", "host host2 is forgotten"]
    assert not [key for key, (value, _) in fleet.stored.all().items() if "host2" in f"{key} {value}" or own in key]
    assert [row["host"] for row in three.agent.json("host", "list")] == ["host1", "host3"]
    eventually(lambda: two.vtep not in three.vteps(), "host3 knows")

    two.switch.ip("link", "set", UNDERLAY, "up")
    two.agent.up()
    fleet.connected()
    eventually(lambda: [port["id"] for port in two.client.get("v1", "ports")] == [own], "it has what is its own alone")
    assert fleet.stored.read(f"port/{own}")["owner"] == "host2"
    eventually(lambda: where(two, segment, vm.mac) == one.vtep, "it knows where its VM is")
    late = two.veth(two.unique("v"), segment)
    assert_connected(late, born)
    assert_connected(late, watcher)


def said(host: Host, *words: str) -> list[str]:
    """What `vxagent host …` prints."""
    return host.agent.cli("host", *words).stdout.splitlines()

"""The shipped unit under a real systemd, installed by the very lines of docs/running.md.

 hypervisor (Debian 12: systemd 252)
┌─────────────────────────────────────────┐
│  one ── tap0 ── switch ── tap1 ── other │    vxagent.service; pings go from one to the other all the while
│  10.0.0.1                      10.0.0.2 │
└─────────────────────────────────────────┘
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from support.lan import clean_world
from vm.lab.guest import Guest
from vm.lab.hypervisor import Inside, ask, namespace_vm
from vm.lab.traffic import MEGABYTE, bulk_tcp, ping
from vm.lab.vms import Vms
from vm.lab.wheel import TREE
from vxagent.lab.waiting import wait_until

pytestmark = pytest.mark.timeout(600)  # the first test starts the guest

MACS = {"tap0": "02:00:00:00:00:01", "tap1": "02:00:00:00:00:02"}
ADDRESSES = {"tap0": "10.0.0.1", "tap1": "10.0.0.2"}
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
WATCHDOG_S = 180  # WatchdogSec=30s and systemd's own patience, where everything is slow
PINS = "/sys/fs/bpf/vxagent"
# What a ping to a file has come to: how many requests it sent, then the numbers of those that were not answered.
MISSING = (
    '/ bytes from / { sub(/.*icmp_seq=/, ""); answered[$1 + 0] = 1 }'
    "/ packets transmitted/ { sent = $1 }"
    "END { print sent + 0; for (n = 1; n <= sent; n++) if (!(n in answered)) print n }"
)


@dataclass
class Site:
    """The hypervisor and the VMs on it, by their taps."""

    host: Guest
    vms: dict[str, Inside] = field(default_factory=dict)

    def plug(self) -> None:
        """Start the VMs. Their ports may be there already."""
        for tap, mac in MACS.items():
            self.vms[tap] = namespace_vm(self.host, tap, mac=mac, address=ADDRESSES[tap])

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.host.run("systemctl", "show", "vxagent", "--value", "-p", name).output.strip()

    def wait_active(self, *, other_than: str = "", within: float = 60) -> None:
        """Wait until the unit is, with another main process than this."""
        wait_until(
            lambda: self.show("ActiveState") == "active" and self.show("MainPID") not in ("0", other_than),
            within=within,
            what="vxagent.service is active",
        )

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Pings, fifty a second; all must be answered but the very last one, which may be under way in the end."""
        told, said = "/run/stream", "/run/stream-said"
        self.host.run("rm", "-f", told)
        pings = self.vms["tap0"].begin(
            f"ping -i 0.02 {ADDRESSES['tap1']} >{said} & echo $! >{told}; wait $!; awk {shlex.quote(MISSING)} {said}"
        )
        try:
            self.host.sh(f"for i in $(seq 100); do [ -s {told} ] && exit; sleep 0.1; done; exit 1")
            yield
            self.host.sh("sleep 1")
        finally:
            self.host.sh(f"kill -INT $(cat {told})")
        sent, *missing = map(int, pings.result(20).output.split())
        assert sent >= 10
        assert missing in ([], [sent])

    def assert_forwards(self) -> None:
        """Bulk TCP goes from one to the other."""
        one, other = self.vms.values()
        assert ping(one, ADDRESSES["tap1"]) == 3
        assert bulk_tcp(one, other, ADDRESSES["tap1"], amount=MEGABYTE) == MEGABYTE


def instructions() -> list[str]:
    """The lines with which docs/running.md has a user install and start vxagent."""
    section = TREE.joinpath("docs/running.md").read_text().split("## Under systemd")[1].split("\n## ")[0]
    block = section.split("`make wheel` built:\n\n")[1].split("\n\nThe unit")[0]
    return [line.strip() for line in block.splitlines() if line.strip()]


def bring_tree(host: Guest) -> None:
    """What the instructions start from: a tree with packaging/ and a wheel in dist/."""
    host.sh("mkdir -p /root/tree/dist /root/tree/packaging/systemd && tar -C /root/tree/dist -xf /dev/vdb")
    for file in TREE.joinpath("packaging/systemd").iterdir():
        host.write(f"/root/tree/packaging/systemd/{file.name}", file.read_text())
    host.sh("rm /usr/local/bin/vxagent")  # the image's


@pytest.fixture(scope="module")
def installed() -> Iterator[Site]:
    """A hypervisor on which a user has followed the instructions, with two VMs that are attached."""
    with clean_world() as world:
        host = Vms(world).hypervisor(world.namespace("outside"))
        host.wait_up()
        bring_tree(host)
        lines = "\n".join(["set -e", "cd /root/tree", "export PIP_NO_INDEX=1", *instructions()])
        host.sh(lines, within=300)
        site = Site(host)
        site.plug()
        host.run("vxagent", "segment", "add", "blue", "--tenant", "acme")
        for tap, mac in MACS.items():
            host.run("vxagent", "port", "attach", tap, "--segment", "blue", "--mac", mac)
        yield site


@pytest.fixture
def site(installed: Site) -> Site:
    """It runs."""
    installed.host.run("systemctl", "start", "vxagent")
    return installed


def test_the_agent_is_ready_and_enabled_after_the_instructions(site: Site) -> None:
    assert site.show("UnitFileState") == "enabled"
    assert site.show("Type") == "notify"
    wait_until(  # with the next sign of life
        lambda: "2 ports" in site.show("StatusText"), within=60, what="the unit's status has both ports"
    )
    site.assert_forwards()


def test_it_runs_as_its_own_user_with_three_capabilities(site: Site) -> None:
    status = site.host.run("cat", f"/proc/{site.show('MainPID')}/status").output
    said = {key: value.split() for key, value in (line.split(":", 1) for line in status.splitlines())}
    uid = site.host.run("id", "-u", "vxagent").output.strip()
    wanted = sum(1 << bit for bit in CAPABILITIES.values())
    assert set(said["Uid"]) == {uid}
    assert uid != "0"
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(said[kind][0], 16) == wanted, kind
    assert said["NoNewPrivs"] == ["1"]


def test_it_is_exposed_by_3_at_most(site: Site) -> None:
    judged = site.host.sh("systemd-analyze security --no-pager --threshold=30 vxagent.service", check=False)
    assert judged.code == 0, judged.output


def test_who_is_not_in_its_group_is_refused(site: Site) -> None:
    said = site.host.sh("runuser -u nobody -- vxagent port list", check=False)
    assert (said.code, "group vxagent" in said.output) == (1, True), said.output


def test_pins_are_in_the_hosts_bpffs_and_outlive_the_unit(site: Site) -> None:
    assert site.host.sh("stat -f -c %T /sys/fs/bpf").output == "bpf_fs\n"
    pins = f"cd {PINS} && find . | sort"
    before = site.host.sh(pins).output
    site.host.run("systemctl", "stop", "vxagent")
    assert site.host.sh(pins).output == before
    assert len(before.splitlines()) > 10
    assert site.host.sh(f"grep -c ' {PINS} ' /proc/self/mounts", check=False).output == "0\n"


def test_a_stop_leaves_it_forwarding_and_away(site: Site) -> None:
    with site.stream():
        site.host.run("systemctl", "stop", "vxagent")
        assert site.show("ActiveState") == "inactive"
        site.assert_forwards()
        assert site.show("ActiveState") == "inactive"
        site.host.run("systemctl", "start", "vxagent")
    site.assert_forwards()


def test_a_restart_loses_no_frame(site: Site) -> None:
    before = site.show("MainPID")
    with site.stream():
        site.host.run("systemctl", "restart", "vxagent")
    assert site.show("MainPID") != before
    site.assert_forwards()


def test_a_reload_is_done_when_it_returns(site: Site) -> None:
    before = site.show("MainPID")
    with site.stream():
        site.host.run("systemctl", "reload", "vxagent")
    assert site.show("MainPID") == before


def test_an_agent_that_is_killed_is_started_again(site: Site) -> None:
    before = site.show("MainPID")
    with site.stream():
        site.host.run("kill", "-KILL", before)
        site.wait_active(other_than=before)
    assert {port["state"] for port in ask(site.host, "port", "list")} == {"up"}


def test_an_agent_that_hangs_is_started_again(site: Site) -> None:
    before = site.show("MainPID")
    with site.stream():
        site.host.run("kill", "-STOP", before)
        site.wait_active(other_than=before, within=WATCHDOG_S)
    log = site.host.run("journalctl", "-u", "vxagent", "--no-pager", "-o", "cat").output
    assert "Watchdog timeout" in log
    assert {port["state"] for port in ask(site.host, "port", "list")} == {"up"}


def test_an_agent_that_was_asked_to_stop_stays_away(site: Site) -> None:
    with site.stream():
        site.host.run("vxagent", "stop")
        wait_until(lambda: site.show("ActiveState") == "inactive", what="the unit is inactive")
    assert site.show("Result") == "success"


def test_everything_is_back_after_a_reboot(site: Site) -> None:
    wanted = site.host.run("vxagent", "export").output
    site.host.reboot()
    site.wait_active(within=WATCHDOG_S)  # the start of everything else goes on meanwhile
    assert site.host.run("vxagent", "export").output == wanted
    assert {port["state"] for port in ask(site.host, "port", "list")} == {"pending"}  # the VMs are gone
    site.plug()
    wait_until(
        lambda: {port["state"] for port in ask(site.host, "port", "list")} == {"up"},
        what="both ports are up",
        within=30,
    )
    site.assert_forwards()

"""Every command by the real command line, once; what it refuses, in which words, and that nothing has changed then.

   a                 k (trunk)               host
┌──────┐       ┌──────────────────┐       ┌──────┐
│ eth0 │       │ VID 10 → blue    │       │ hv0  │
└──┬───┘       │ VID 20 → red     │       └──┬───┘
┌──┴───┐       └────────┬─────────┘          │            up0: blue is VLAN 10, red is VLAN 20
│  va  │ in blue       vt               internal, in red  segment theirs belongs to another tenant
└──────┘
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.hearing import frame, who_hears
from support.lan import Lan, running_lan
from vxagent.lab.agent import VXAGENT, Agent
from vxagent.lab.frames import BROADCAST
from vxagent.lab.vm import VethVm
from vxagent.lab.waiting import wait_until

LISTED, STATIC, OTHER = (f"02:00:00:00:77:0{n}" for n in (1, 2, 3))
THOUSAND = 1000


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file, with one of everything, made by the command line."""
    with running_lan() as lan:
        for words in (
            "segment add blue --tenant acme --vlan 10 --vni 5010",
            "segment add blue2 --tenant acme",
            "segment add red --tenant acme --vlan 20 --mtu 9000 --unknown-unicast drop",
            "segment add theirs --tenant evil",
            f"port attach va --segment blue --mac {LISTED} --ip 10.0.0.1 --ip 2001:db8::/64"
            " --isolated --trusted --hook tc",
            "port attach vt --id trunk --trunk blue:10,red:20 --native blue2 --max-macs 7",
            "port attach --internal hv0 --segment red",
            "uplink add up0 --hook tc",
            f"fdb add {STATIC} --segment blue --port va",
            f"fdb add {OTHER} --segment blue --port trunk",
        ):
            lan.agent.cli(*words.split())
        yield lan


@pytest.fixture(scope="module")
def vm(lan: Lan) -> VethVm:
    """The VM of port va, which takes the device when it appears."""
    vm = lan.veth("va", None, mac=LISTED)
    wait_until(lambda: lan.state("va") == "up", what="va is up")
    return vm


@pytest.fixture
def unchanged(lan: Lan) -> Iterator[None]:
    """Whatever a test asks for, it changes nothing."""
    before = export(lan)
    yield
    assert export(lan) == before


def export(lan: Lan) -> str:
    return b"".join(lan.client.raw("v1", "export")).decode()


def fails(agent: Agent, words: str, code: int = 1) -> str:
    """A command's one line on stderr; it must end with `code` and print nothing."""
    done = agent.cli(*words.split(), check=False)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert re.fullmatch(r"vxagent: [^\n]+\n", done.stderr)
    return done.stderr.removeprefix("vxagent: ").rstrip("\n")


# --- what commands print ---------------------------------------------------------------------------

KEYS = {
    "status": "version host ready pid uptime_s ports segments fdb_entries cluster drift repairs postponed foreign",
    "segment list": "name tenant vlan vni mtu unknown_unicast ports",
    "port list": "id ifname state mode segments macs ips hook isolated trusted"
    " dhcp_snoop enforce rx_packets rx_bytes tx_packets tx_bytes drops",
    "uplink list": "ifname state hook rx_packets tx_packets",
    "fdb list": "segment tenant mac port vtep origin age_s held_s",
    "drops": "port segment reason packets bytes copies shadow",
}
"""Keys that others rely on, by command."""


@pytest.mark.parametrize("command", KEYS)
@pytest.mark.parametrize("switch", ["--json", "-j"])
def test_reading_commands_print_the_keys_that_others_rely_on(lan: Lan, vm: VethVm, command: str, switch: str) -> None:
    who_hears(lan, vm, frame(BROADCAST, "02:00:00:00:77:99"))  # something to see in `drops`
    printed = json.loads(lan.agent.cli(*command.split(), switch).stdout)
    rows = [printed] if command == "status" else printed
    assert rows
    for row in rows:
        assert KEYS[command].split() == [key for key in row if key in KEYS[command].split()]


@pytest.mark.parametrize(
    "command", ["doctor", "segment show blue", "port show va", "diff /dev/null --prune", "diff /dev/null", "export"]
)
def test_other_reading_commands_print_json_as_well(lan: Lan, command: str) -> None:
    assert json.loads(lan.agent.cli(*command.split(), "-j").stdout) == lan.agent.json(*command.split())


def row_of(rows: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """The one row with these values."""
    [row] = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def shows(row: dict[str, Any], **wanted: object) -> bool:
    return {key: row[key] for key in wanted} == wanted


def test_a_segment_is_listed_as_it_was_asked_for(lan: Lan) -> None:
    rows = lan.agent.json("segment", "list")
    assert shows(row_of(rows, name="blue"), tenant="acme", vlan=10, vni=5010, mtu=1500, unknown_unicast="flood")
    assert shows(row_of(rows, name="red"), vlan=20, vni=None, mtu=9000, unknown_unicast="drop", ports=["hv0", "trunk"])
    assert lan.agent.json("segment", "show", "blue")["ports"] == ["trunk", "va"]


def test_a_port_is_listed_as_it_was_asked_for(lan: Lan, vm: VethVm) -> None:
    rows = lan.agent.json("port", "list")
    access, trunk, internal = (row_of(rows, id=name) for name in ("va", "trunk", "hv0"))
    assert shows(access, ifname="va", state="up", mode="access", segments=[{"segment": "blue", "vid": None}])
    assert shows(access, macs=[LISTED], ips=["10.0.0.1", "2001:db8::/64"], hook="tc", isolated=True, trusted=True)
    tagged = [{"segment": "blue", "vid": 10}, {"segment": "red", "vid": 20}]
    assert shows(trunk, ifname="vt", state="pending", mode="trunk", macs=[], isolated=False, trusted=False)
    assert sorted(trunk["segments"], key=str) == sorted([{"segment": "blue2", "vid": None}, *tagged], key=str)
    assert shows(internal, ifname="hv0", state="up", mode="internal", segments=[{"segment": "red", "vid": None}])
    assert lan.agent.json("port", "show", "trunk")["max_macs"] == 7


def test_the_fdb_is_listed_by_segment(lan: Lan, vm: VethVm) -> None:
    rows = lan.agent.json("fdb", "list", "--segment", "blue")
    assert shows(row_of(rows, mac=STATIC), port="va", tenant="acme", vtep=None, origin="static", age_s=None)
    assert shows(row_of(rows, mac=LISTED), port="va", origin="static")
    assert lan.agent.json("fdb", "list", "--segment", "theirs") == []
    peer = lan.veth("learner", "theirs")
    who_hears(lan, peer, frame(BROADCAST, peer.mac))
    learned = row_of(lan.agent.json("fdb", "list"), mac=peer.mac)
    assert shows(learned, segment="theirs", tenant="evil", port="learner", origin="learned")
    assert 0 <= learned["age_s"] < 60
    assert lan.agent.cli("fdb", "flush", "--segment", "theirs").stdout == "1 learned entry forgotten\n"
    assert lan.agent.cli("fdb", "flush", "--port", "learner").stdout == "0 learned entries forgotten\n"
    lan.agent.cli("port", "detach", "learner")


def test_drops_are_listed_by_port_and_reason(lan: Lan, vm: VethVm) -> None:
    before = lan.agent.drops("va").get("src_mac_denied", 0)
    who_hears(lan, vm, sent := frame(BROADCAST, "02:00:00:00:77:98"))
    [row] = [row for row in lan.agent.json("drops", "--port", "va") if row["reason"] == "src_mac_denied"]
    assert shows(row, port="va", segment="blue", packets=before + 1, bytes=(before + 1) * len(sent))
    assert lan.show("va")["drops"] == sum(lan.agent.drops("va").values())


TABLES = {
    "status": r"version +\d.*\nhost +\S+\nready +yes\n",
    "segment list": r"NAME +TENANT +VLAN .*\nblue +acme +10 +5010 ",
    "segment show blue": r"name +blue\ntenant +acme\n",
    "port list": r"ID +DEVICE +STATE .*\nhv0 +hv0 +up +internal +red ",
    "port show va": r"id +va\nifname +va\n",
    "uplink list": r"DEVICE +STATE .*\nup0 +pending +tc ",
    "fdb list": r"SEGMENT +TENANT +MAC +PORT .*\n(.*\n)*blue +acme +02:00:00:00:77:01 +va +static ",
    "drops": r"PORT +SEGMENT +REASON +PACKETS +BYTES +OF\n",
    "doctor": r"(ok|warn|FAIL) ",
}


@pytest.mark.parametrize("command", TABLES)
def test_reading_commands_print_tables_for_people(lan: Lan, vm: VethVm, command: str) -> None:
    assert re.match(TABLES[command], lan.agent.cli(*command.split()).stdout)


def test_the_version_is_the_agents(lan: Lan) -> None:
    assert lan.agent.cli("--version").stdout == f"vxagent {lan.agent.json('status')['version']}\n"


def test_the_run_dir_may_come_from_the_environment(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VXAGENT_RUN_DIR", str(lan.agent.run_dir))
    done = subprocess.run([VXAGENT, "status", "-j"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["pid"] == lan.agent.pid


def test_a_reader_that_goes_away_is_no_error(lan: Lan) -> None:
    command = [VXAGENT, "--run-dir", str(lan.agent.run_dir), "port", "list"]
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -0', "bash", *command], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


# --- changes: twice is no failure, something else is ------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("segment add blue --tenant acme --vlan 10 --vni 5010", "segment blue is there already"),
        (
            "port attach vt --id trunk --trunk blue:10 --trunk red:20 --native blue2 --max-macs 7",
            "port trunk is attached already; device vt is not there",
        ),
        ("port attach --internal hv0 --segment red", "port hv0 is attached already"),
        ("uplink add up0 --hook tc", "uplink up0 is there already; device up0 is not there"),
        (f"fdb add {STATIC.upper()} --segment blue --port va", f"{STATIC.upper()} is there already"),
        ("segment set blue --mtu 1500", "segment blue is so already"),
        ("port set trunk --max-macs 7 --no-isolated", "port trunk is so already; device vt is not there"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_asking_for_what_is_there_changes_nothing_and_says_so(lan: Lan, words: str, said: str) -> None:
    assert lan.agent.cli(*words.split()).stdout == f"{said}\n"


def test_every_object_is_made_set_and_deleted(lan: Lan) -> None:
    before = export(lan)
    for words, said in (
        ("segment add green --tenant acme --vlan 30 --vni 5030", "segment green added"),
        ("segment set green --no-vlan --no-vni --mtu 1400 --unknown-unicast drop", "segment green changed"),
        ("port attach vg --segment green --id g", "port g attached; device vg is not there"),
        ("port set g --mac 02:00:00:00:77:10 --isolated", "port g changed; device vg is not there"),
        ("port set g --trusted --max-macs 9 --hook tc", "port g changed; device vg is not there"),
        ("port set g --ip 10.0.0.9", "port g changed; device vg is not there"),
        ("port set g --no-mac --no-ip --no-isolated --no-trusted", "port g changed; device vg is not there"),
        ("port set g --trunk green:5,blue2:6 --native blue", "port g changed; device vg is not there"),
        ("port set g --no-native", "port g changed; device vg is not there"),
        ("port set g --segment green", "port g changed; device vg is not there"),
        ("uplink add up9", "uplink up9 added; device up9 is not there"),
        ("fdb add 02:00:00:00:77:11 --segment green --port g", "02:00:00:00:77:11 added"),
        ("fdb del 02:00:00:00:77:11 --segment green", "02:00:00:00:77:11 deleted"),
        ("uplink del up9", "uplink up9 deleted"),
        ("port detach g", "port g detached"),
        ("segment del green", "segment green deleted"),
    ):
        assert lan.agent.cli(*words.split()).stdout == f"{said}\n"
    assert export(lan) == before


def test_a_static_entry_goes_with_its_port(lan: Lan) -> None:
    for words in (
        "port attach vg --segment theirs",
        "fdb add 02:00:00:00:77:12 --segment theirs --port vg",
        "port detach vg",
    ):
        lan.agent.cli(*words.split())
    assert "02:00:00:00:77:12" not in export(lan)


# --- bad input ---------------------------------------------------------------------------------------

REFUSED = {
    # names of devices and objects
    "port attach a/b --segment blue": "device 'a/b': a device name has no blanks, slashes or colons",
    "port attach sixteen-letters! --segment blue": "device 'sixteen-letters!': a device name has 1 to 15 bytes",
    "port attach .. --segment blue": "device '..': a device name has no blanks",
    "segment add b@d! --tenant t": "segment 'b@d!': a name has 1 to 63 letters",
    "segment add x --tenant t!": "tenant 't!': a name has 1 to 63 letters",
    # numbers
    "segment add x --tenant t --vlan 0": "vlan 0: must be 1 to 4094",
    "segment add x --tenant t --vlan 4095": "vlan 4095: must be 1 to 4094",
    "segment add x --tenant t --vni 0": "vni 0: must be 1 to 16777215",
    "segment add x --tenant t --vni 16777216": "vni 16777216: must be 1 to 16777215",
    "segment add x --tenant t --mtu 67": "mtu 67: must be",
    "port attach vb --segment blue --max-macs -1": "max_macs -1: must be 0 to",
    "port attach vb --trunk blue:0": "trunk vid 0: must be 1 to 4094",
    "port attach vb --trunk blue:4095": "trunk vid 4095: must be 1 to 4094",
    # MACs and addresses
    "port attach vb --segment blue --mac 02:00:00:00:00": "mac '02:00:00:00:00': a MAC has six octets",
    "port attach vb --segment blue --mac 03:00:00:00:00:01": "mac '03:00:00:00:00:01': a multicast MAC cannot",
    "port attach vb --segment blue --mac 00:00:00:00:00:00": "mac '00:00:00:00:00:00': the zero MAC",
    f"port attach vb --segment blue --mac {LISTED}": f"MAC {LISTED} is static in segment blue already, on port va",
    f"port attach vb --segment blue --mac {STATIC}": f"MAC {STATIC} is static in segment blue already, on port va",
    f"fdb add {LISTED} --segment blue --port trunk": f"MAC {LISTED} is static in segment blue already, on port va",
    f"fdb add {STATIC} --segment blue --port trunk": f"fdb entry {STATIC} is there already and differs",
    "fdb add nonsense --segment blue --port va": "mac 'nonsense': a MAC has six octets",
    "port attach vb --segment blue --ip 10.0.0.300": "ip '10.0.0.300': must be an IPv4 or IPv6 address",
    "port attach vb --segment blue --ip 10.0.0.1/8": "ip '10.0.0.1/8': must be an IPv4 or IPv6 address",
    "port attach vb --segment blue --ip 224.0.0.1": "ip '224.0.0.1': must be a unicast address",
    # what is in use, or not there
    "segment del blue": "segment blue is in use by port",
    "segment del nowhere": "no segment nowhere; see `vxagent segment list`",
    "segment set nowhere --mtu 1500": "no segment nowhere",
    "segment show nowhere": "no segment nowhere",
    "port attach vb --segment nowhere": "no segment nowhere",
    "port attach vb --trunk blue:10,nowhere:11": "no segment nowhere",
    "port detach nobody": "no port nobody; see `vxagent port list`",
    "port set nobody --max-macs 1": "no port nobody",
    "port show nobody": "no port nobody",
    "uplink del nobody": "no uplink nobody",
    "fdb del 02:00:00:00:77:77 --segment blue": "no fdb entry 02:00:00:00:77:77",
    f"fdb del {LISTED} --segment blue": f"no fdb entry {LISTED}",
    "fdb add 02:00:00:00:77:13 --segment blue --port nobody": "no port nobody",
    "fdb add 02:00:00:00:77:13 --segment theirs --port va": "port va is not in segment theirs",
    "fdb list --segment nowhere": "no segment nowhere",
    "fdb flush --segment nowhere": "no segment nowhere",
    "fdb flush --port nobody": "no port nobody",
    "drops --port nobody": "no port nobody",
    # two that want the same
    "segment add blue --tenant evil": "segment blue is there already and differs; use `vxagent segment set`",
    "segment add x --tenant t --vlan 10": "vlan 10 is given to segment blue already; choose another vlan for x",
    "segment add x --tenant t --vni 5010": "vni 5010 is given to segment blue already; choose another vni for x",
    "segment set blue --vlan 20": "vlan 20 is given to segment red already; choose another vlan for blue",
    "port attach va --segment red": "port va is there already and differs; use `vxagent port set`",
    "port attach other --id va --segment blue": "port va is there already and differs",
    "port attach va --id another --segment blue": "device va is port va already; port another needs",
    "port attach up0 --segment blue": "device up0 would be port up0 and an uplink; each needs a device of its own",
    "port attach vb --id up0 --segment blue": "up0 is the name of an uplink; give the port another --id",
    "uplink add va": "device va would be port va and an uplink; each needs a device of its own",
    f"port set va --mac {LISTED} --mac {OTHER}": f"MAC {OTHER} is static in segment blue already, on port trunk",
    "uplink add up0": "uplink up0 is there already and differs; use `vxagent uplink del`",
    # tenants and trunks
    "port attach vb --trunk blue:10,theirs:30": "port vb would join tenants acme (segment blue) and evil",
    "port attach vb --trunk blue:10 --native theirs": "port vb would join tenants",
    "port set trunk --native theirs": "port trunk would join tenants",
    "segment set blue --tenant evil": "port trunk would join tenants",
    "port attach vb --trunk blue:10,red:10": "trunk vid '10': is given twice",
    "port attach vb --trunk blue:10,blue:11": "trunk segment 'blue': is given twice",
    "port attach vb --trunk blue:10 --native blue": "native 'blue': is in the trunk's map already",
    "port set hv0 --trunk blue:10": "port hv0 is internal",
    # not in this version
    # files
    "apply /nowhere.toml": "/nowhere.toml cannot be read: No such file or directory",
    "diff /": "/ cannot be read: Is a directory",
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused_ends_with_1_one_line_and_no_change(lan: Lan, words: str) -> None:
    assert fails(lan.agent, words).startswith(REFUSED[words])


WRONG_USAGE = (
    "",
    "nonsense",
    "segment",
    "segment add",
    "segment add x",
    "segment add x --tenant t --vlan ten",
    "segment add x --tenant t --vni 1.5",
    "segment add x --tenant t --unknown-unicast maybe",
    "segment set blue",
    "segment set blue --vlan 5 --no-vlan",
    "port attach",
    "port attach vb",
    "port attach vb --internal vb --segment blue",
    "port attach vb --segment blue --trunk red:20",
    "port attach vb --segment blue --native red",
    "port attach vb --trunk blue",
    "port attach vb --trunk blue:ten",
    "port attach vb --segment blue --hook xdp",
    "port attach vb --segment blue --max-macs many",
    "port set va",
    "port set va --mac 02:00:00:00:77:14 --no-mac",
    "port set va --nonsense",
    "port detach",
    "fdb add 02:00:00:00:77:15 --segment blue",
    "uplink add",
    "apply",
    "drops --reason hairpin",
    "status --yaml",
)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("words", WRONG_USAGE)
def test_wrong_usage_ends_with_2_and_no_change(lan: Lan, words: str) -> None:
    done = lan.agent.cli(*words.split(), check=False)
    assert done.returncode == 2
    assert done.stderr
    assert done.stdout == ""


# --- documents -----------------------------------------------------------------------------------------


@pytest.fixture
def other(lan: Lan) -> Iterator[Agent]:
    """Another agent, of an empty switch."""
    with running_lan() as elsewhere:
        yield elsewhere.agent


def test_a_document_goes_round(lan: Lan, other: Agent, tmp_path: Path) -> None:
    document = tmp_path / "all.toml"
    document.write_text(lan.agent.cli("export").stdout)
    added = other.cli("apply", str(document)).stdout.splitlines()
    assert {line.split()[0] for line in added} == {"+"}
    assert other.cli("export").stdout == document.read_text()
    assert other.cli("apply", str(document)).stdout == "nothing to change\n"
    assert other.cli("diff", str(document)).stdout == "no difference\n"
    assert json.loads(other.cli("diff", str(document), "--json").stdout) == []
    assert other.json("export") == lan.agent.json("export")


BASE = '[[segment]]\nname = "blue"\ntenant = "acme"\n'
PORT = '[[port]]\nifname = "{}"\nsegment = "blue"\n'


def test_apply_removes_only_what_an_apply_made_and_prune_the_rest(other: Agent, tmp_path: Path) -> None:
    document = tmp_path / "desired.toml"
    document.write_text(BASE + PORT.format("va") + PORT.format("vb"))
    other.cli("apply", str(document))
    other.cli("port", "attach", "vc", "--segment", "blue")
    document.write_text(BASE + PORT.format("va"))
    assert other.cli("diff", str(document)).stdout == "- port vb\n"
    assert other.cli("apply", str(document)).stdout == "- port vb\n"
    assert [port["id"] for port in other.json("port", "list")] == ["va", "vc"]
    assert other.cli("diff", "--prune", str(document)).stdout == "- port vc\n"
    assert other.cli("apply", "--prune", str(document)).stdout == "- port vc\n"
    assert [port["id"] for port in other.json("port", "list")] == ["va"]
    document.write_text(BASE.replace("acme", "other") + PORT.format("va") + "isolated = true\n")
    assert other.cli("diff", str(document)).stdout == (
        "~ segment blue: tenant acme -> other\n~ port va: isolated no -> yes\n"
    )
    changes = json.loads(other.cli("apply", str(document), "--json").stdout)
    assert [(change["action"], change["kind"], change["name"]) for change in changes] == [
        ("set", "segment", "blue"),
        ("set", "port", "va"),
    ]
    assert sorted(other.cli("apply", "/dev/null").stdout.splitlines()) == ["- port va", "- segment blue"]
    assert other.cli("export").stdout == ""


def test_a_document_may_come_from_stdin(lan: Lan) -> None:
    text = export(lan)
    command = [VXAGENT, "--run-dir", str(lan.agent.run_dir), "diff", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stdout == "no difference\n"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A line that makes one of a thousand entries wrong.

    Attributes:
        line: what is appended to the entry's table.
        says: part of the refusal.
        at: which line the refusal names, counted from that one; None: it names none.
    """

    line: str
    says: str
    at: int | None = 0


WRONG = (
    Wrong(line='mac = ["02:00:00:00:00"]', says="mac '02:00:00:00:00': a MAC has six octets"),
    Wrong(line='mac = "02:00:00:00:00:01"', says="mac: must be a list, not text"),
    Wrong(line="isolated = 1", says="isolated: must be true or false, not a whole number"),
    Wrong(line='colour = "blue"', says="colour: is not a known key"),
    Wrong(line="max_macs = -1", says="max_macs -1: must be 0 to"),
    Wrong(line='trunk = ["blue:10"]', says="segment 'blue': a trunk port names its segments in", at=-1),
    Wrong(line="max_macs = ", says="not TOML: invalid value"),
    Wrong(line='id = "v1"', says="v1 stands in the document twice", at=-3),
    Wrong(line='native = "blue2"', says="native 'blue2': needs a trunk"),
    Wrong(line=f'mac = ["{LISTED}"]', says=f"MAC {LISTED} is static in segment blue already, on port va", at=None),
    Wrong(line='[[port]]\nifname = "vx"\nsegment = "nowhere"', says="no segment nowhere", at=None),
)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.line)
def test_one_wrong_entry_in_a_thousand_changes_nothing(lan: Lan, tmp_path: Path, wrong: Wrong) -> None:
    ports = [PORT.format(f"v{n}") for n in range(THOUSAND)]
    before = BASE + "".join(ports[:701])
    document = tmp_path / "thousand.toml"
    document.write_text(f"{before}{wrong.line}\n{''.join(ports[701:])}")
    said = fails(lan.agent, f"apply {document}")
    assert wrong.says in said
    where = f"{document}:{before.count(chr(10)) + 1 + (wrong.at or 0)}: "
    assert said.startswith(where) == (wrong.at is not None), said


@pytest.mark.usefixtures("unchanged")
def test_a_document_that_is_no_text_is_refused_with_its_line(lan: Lan, tmp_path: Path) -> None:
    document = tmp_path / "latin1.toml"
    document.write_bytes(BASE.encode() + b'[[port]]\nifname = "\xe4"\n')
    assert fails(lan.agent, f"apply {document}") == f"{document}:5: not UTF-8 text"


# --- the API --------------------------------------------------------------------------------------------


def ask(lan: Lan, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    """One request over the API's socket."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(lan.agent.run_dir / "api.sock"))
    try:
        with suppress(BrokenPipeError):  # it answered before it had read everything
            connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


BODIES = {
    "no JSON": (b"{nonsense", 422, "body: is not JSON"),
    "a list": (b"[]", 422, "must be a table, not a list"),
    "no text": (b'{"name": "\xff", "tenant": "t"}', 422, "body: is not JSON"),
    "deep": (b"[" * 100_000, 422, ""),
    "an unknown key": (b'{"name": "x", "tenant": "t", "colour": "blue"}', 422, "colour: is not a known key"),
    "a missing key": (b'{"name": "x"}', 422, "tenant: is missing"),
    "a wrong type": (b'{"name": "x", "tenant": "t", "vlan": "10"}', 422, "vlan: must be a whole number, not text"),
    "huge": (b'{"name": "' + b"x" * (2 << 20) + b'"}', 413, "body: is larger than 1048576 bytes"),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_wrong_is_refused(lan: Lan, body: str) -> None:
    content, status, message = BODIES[body]
    answered, said = ask(lan, "POST", "/v1/segments", content)
    assert answered == status
    assert message in said["error"]["message"]
    assert "\n" not in said["error"]["message"]
    assert said["error"]["exit_code"] == 1


@pytest.mark.usefixtures("unchanged")
def test_a_huge_body_without_a_length_is_refused_while_it_comes(lan: Lan) -> None:
    answered, said = ask(lan, "POST", "/v1/segments", iter([b"x" * (1 << 18)] * 64))
    assert (answered, said["error"]["type"]) == (413, "TooLarge")


@pytest.mark.usefixtures("unchanged")
def test_what_is_no_http_does_not_harm_the_agent(lan: Lan) -> None:
    for rubbish in (b"\0" * 100, b"GET\r\n\r\n", b"POST /v1/segments HTTP/1.1\r\nContent-Length: 99999\r\n\r\n{"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(lan.agent.run_dir / "api.sock"))
            sock.sendall(rubbish)
    assert ask(lan, "GET", "/v1/status")[1]["ready"] is True


def test_paths_and_methods_that_do_not_exist_are_told_apart(lan: Lan) -> None:
    assert ask(lan, "GET", "/v1/nonsense")[0] == 404
    assert ask(lan, "DELETE", "/v1/status")[0] == 405
    assert ask(lan, "GET", "/v1/ports/nobody") == (
        404,
        {"error": {"type": "NotFound", "message": "no port nobody; see `vxagent port list`", "exit_code": 1}},
    )


def test_the_schema_is_served_and_names_every_path(lan: Lan) -> None:
    schema = ask(lan, "GET", "/openapi.json")[1]
    assert schema["openapi"].startswith("3.1")
    assert {"/v1/segments", "/v1/ports/{port}", "/v1/fdb/{segment}/{mac}", "/v1/apply"} <= schema["paths"].keys()


def test_metrics_count_what_the_commands_show(lan: Lan, vm: VethVm) -> None:
    who_hears(lan, vm, frame(BROADCAST, "02:00:00:00:77:97"))
    text = b"".join(lan.client.raw("metrics")).decode()
    denied = lan.agent.drops("va")["src_mac_denied"]
    [counted] = re.findall(
        r'^vxagent_\w*packets_total\{.*port="va",reason="src_mac_denied".*\} (\S+)$', text, re.MULTILINE
    )
    assert float(counted) == denied
    assert 'vxagent_build_info{version="' in text

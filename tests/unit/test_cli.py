"""The command line: what it asks, what it prints, what it exits with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vxagent_cli
from support.agents import ServedHost
from vxagent.core.tables import Origin
from vxagent.datapath.abi import Reason
from vxagent.datapath.base import Drop, FdbEntry
from vxagent.runtime.findings import Finding, Level
from vxagent.runtime.rundir import Options
from vxagent_cli.__main__ import main as console_script
from vxagent_cli.app import run

TESTS = Path(__file__).parents[1]
TAP9_WAITS = "device tap9 is not there"
DOCUMENT = """
[[segment]]
name = "blue"
tenant = "acme"

[[port]]
ifname = "tap0"
segment = "blue"
"""


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str


Vxagent = Callable[..., Ran]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ServedHost]:
    with ServedHost(tmp_path) as host:
        yield host


@pytest.fixture
def vxagent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Vxagent:
    """Runs a command line against the agent in tmp_path."""

    def call(line: str, *more: str) -> Ran:
        code = run(["--run-dir", str(tmp_path), *line.split(), *more])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def blue(host: ServedHost, vxagent: Vxagent) -> Vxagent:
    """A host with segments blue and red of acme, and port tap0 in blue."""
    for line in (
        "segment add blue --tenant acme --vlan 10",
        "segment add red --tenant acme",
        "port attach tap0 --segment blue",
    ):
        assert vxagent(line).code == 0
    return vxagent


def assert_refused(ran: Ran, code: int, message: str) -> None:
    """It ended with this code, nothing on stdout and one line on stderr that begins like this."""
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"vxagent: {message}"), ran.err
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")


# --- exit codes ----------------------------------------------------------------------------------


def test_done_is_0_and_says_so(host: ServedHost, vxagent: Vxagent) -> None:
    assert vxagent("segment add blue --tenant acme") == Ran(0, "segment blue added\n", "")


def test_what_is_there_unchanged_is_0_and_says_so(blue: Vxagent) -> None:
    assert blue("segment add blue --tenant acme --vlan 10") == Ran(0, "segment blue is there already\n", "")
    assert blue("port attach tap0 --segment blue") == Ran(0, "port tap0 is attached already\n", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("segment add blue --tenant evil", "segment blue is there already and differs; use `vxagent segment set`"),
        ("segment add x --tenant acme --vlan 4095", "vlan 4095: must be 1 to 4094"),
        ("segment add x --tenant acme --vlan 10", "vlan 10 is given to segment blue already"),
        ("segment del nope", "no segment nope; see `vxagent segment list`"),
        ("segment del blue", "segment blue is in use by port tap0"),
        ("segment show nope", "no segment nope"),
        ("port attach a/b --segment blue", "device 'a/b': a device name has no blanks, slashes or colons"),
        ("port attach tap1 --segment blue --mac 01:00:5e:00:00:01", "mac '01:00:5e:00:00:01': a multicast MAC"),
        ("port attach tap1 --segment blue --mac 02:00", "mac '02:00': a MAC has six octets"),
        ("port attach tap1 --segment blue --ip 10.0.0", "ip '10.0.0': must be an IPv4 or IPv6 address"),
        ("port attach tap1 --trunk blue:0", "trunk vid 0: must be 1 to 4094"),
        ("port attach tap1 --trunk blue:10,red:10", "trunk vid '10': is given twice"),
        ("port set nope --trusted", "no port nope; see `vxagent port list`"),
        ("port detach nope", "no port nope"),
        ("uplink del eth1", "no uplink eth1"),
        ("fdb add 02:00:00:00:00:01 --segment blue --port nope", "no port nope"),
        ("fdb del 02:00:00:00:00:01 --segment blue", "no fdb entry 02:00:00:00:00:01"),
        ("drops --port nope", "no port nope"),
        ("apply /nonexistent.toml", "/nonexistent.toml cannot be read: No such file or directory"),
    ],
)
def test_refused_is_1_with_one_line(blue: Vxagent, line: str, message: str) -> None:
    assert_refused(blue(line), 1, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Missing command; see `vxagent --help`"),
        ("nope", "No such command 'nope'"),
        ("port", "Missing command; see `vxagent port --help`"),
        ("port list --nope", "No such option: --nope"),
        (
            "port list --run-dir /run/x",
            "No such option: --run-dir; it goes before the command: `vxagent --run-dir DIR COMMAND`",
        ),
        ("port attach tap1 --segment blue --rate-up 1000", "No such option: --rate-up"),
        ("port list more", "Got unexpected extra argument(s) (more)"),
        ("segment add", "Missing argument 'NAME'"),
        ("segment add x", "Missing option '--tenant'"),
        ("segment add x --tenant acme --vlan ten", "Invalid value for '--vlan'"),
        ("segment add x --tenant acme --unknown-unicast maybe", "Invalid value for '--unknown-unicast'"),
        ("segment set blue", "nothing to set"),
        ("segment set blue --vlan 10 --no-vlan", "--vlan and --no-vlan contradict each other"),
        ("port attach", "give either the device IFNAME or --internal NAME"),
        ("port attach tap1 --internal host0 --segment blue", "give either the device IFNAME or --internal NAME"),
        ("port attach tap1", "give --segment, or --trunk for a trunk port"),
        ("port attach tap1 --segment blue --trunk blue:10", "--segment and --trunk contradict each other"),
        ("port attach --internal host0 --trunk blue:10", "--internal and --trunk contradict each other"),
        ("port attach tap1 --segment blue --native red", "--native needs --trunk"),
        ("port attach tap1 --trunk blue:ten", "--trunk 'blue:ten': must be SEGMENT:VID"),
        ("port attach tap1 --trunk blue", "--trunk 'blue': must be SEGMENT:VID"),
        ("port attach tap1 --segment blue --hook xdp", "Invalid value for '--hook'"),
        ("port attach tap1 --segment blue --max-macs many", "Invalid value for '--max-macs'"),
        ("port attach tap1 --segment blue --mac", "Option '--mac' requires an argument"),
        ("port set tap0", "nothing to set"),
        ("port set tap0 --mac 02:00:00:00:00:01 --no-mac", "--mac and --no-mac contradict each other"),
        ("port set tap0 --native red --no-native", "--native and --no-native contradict each other"),
        ("fdb add 02:00:00:00:00:01 --segment blue", "give one of --port and --vtep"),
        ("apply", "Missing argument 'FILE'"),
    ],
)
def test_wrong_usage_is_2_with_one_line(vxagent: Vxagent, line: str, message: str) -> None:
    assert_refused(vxagent(line), 2, message)


@pytest.mark.parametrize("line", ["status", "port list --json", "segment add x --tenant t", "stop", "reload"])
def test_no_agent_is_3(vxagent: Vxagent, tmp_path: Path, line: str) -> None:
    assert_refused(vxagent(line), 3, f"no agent answers in {tmp_path}; start one with `vxagent up`")


def test_a_socket_that_a_dead_agent_left_is_3(vxagent: Vxagent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    assert vxagent("status").code == 3


def test_an_agent_that_hangs_up_is_1(vxagent: Vxagent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())  # noqa: PLW0108  # accept in the thread
        thread.start()
        assert_refused(vxagent("status"), 1, f"the connection to the agent in {tmp_path} broke")
        thread.join()


def test_an_answer_that_is_cut_off_is_1(vxagent: Vxagent, tmp_path: Path) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n[\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        assert vxagent("fdb list").code == 1
        thread.join()


def test_ctrl_c_while_the_commands_load_is_130_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        @staticmethod
        def find_spec(*_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delattr(vxagent_cli, "app")
    monkeypatch.delitem(sys.modules, "vxagent_cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted])
    with pytest.raises(SystemExit) as ended:
        console_script()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_the_run_dir_comes_from_the_environment_too(
    host: ServedHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VXAGENT_RUN_DIR", str(host.run_dir))
    assert run(["status"]) == 0


def test_a_run_dir_too_long_for_a_socket_address_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    with ServedHost(deep):
        assert run(["--run-dir", str(deep), "status"]) == 0


# --- reading -------------------------------------------------------------------------------------

PORT_KEYS = "id ifname state mode segments macs ips hook isolated trusted rx_packets rx_bytes tx_packets tx_bytes drops"


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("segment list", "name tenant vlan vni mtu unknown_unicast multicast_snooping ports"),
        ("port list", PORT_KEYS),
        ("uplink list", "ifname state hook rx_packets tx_packets"),
        ("fdb list", "segment tenant mac port vtep origin age_s held_s"),
        ("drops", "port segment reason packets bytes"),
    ],
)
def test_lists_have_the_keys_that_others_rely_on(host: ServedHost, blue: Vxagent, line: str, keys: str) -> None:
    blue("uplink add eth1")
    blue("fdb add 02:00:00:00:00:01 --segment blue --port tap0")
    host.datapath.dropped = [Drop(port=1, segment=1, reason=Reason.MALFORMED, packets=1, bytes=60)]
    for switch in ("--json", "-j"):
        found = json.loads(blue(f"{line} {switch}").out)
        assert found
        assert all(set(keys.split()) <= set(row) for row in found)


def test_status_is_one_object_or_a_sheet(blue: Vxagent) -> None:
    status = json.loads(blue("status --json").out)
    assert (status["ready"], status["ports"], status["segments"], status["cluster"]) == (True, 1, 2, "off")
    assert "host         hv1\n" in blue("status").out


def test_port_list_for_people(blue: Vxagent) -> None:
    blue("port attach tap9 --trunk blue:10,red:20 --id vm9")
    assert blue("port list").out == (
        "ID    DEVICE  STATE    MODE    SEGMENTS        HOOK    RX  TX  DROPS  LOST  WHY NO XDP\n"
        "tap0  tap0    up       access  blue            xdp+tc   0   0      0     0  -\n"
        "vm9   tap9    pending  trunk   blue:10,red:20  tc       0   0      0     0  -\n"
    )


def test_lists_for_people_say_why_a_device_is_without_xdp(blue: Vxagent) -> None:
    blue("port set tap0 --hook tc")
    blue("uplink add eth1 --hook tc")
    for kind in ("port", "uplink"):
        assert blue(f"{kind} list").out.splitlines()[1].endswith("  asked for by --hook tc")


def test_segment_list_for_people(blue: Vxagent) -> None:
    assert blue("segment list").out == (
        "NAME  TENANT  VLAN  VNI   MTU  UNKNOWN  PORTS\n"
        "blue  acme      10    -  1500  flood        1\n"
        "red   acme       -    -  1500  flood        0\n"
    )


def test_fdb_list_for_people(host: ServedHost, blue: Vxagent) -> None:
    blue("fdb add 02:00:00:00:00:01 --segment blue --port tap0")
    assert blue("fdb list").out == (
        "SEGMENT  TENANT  MAC                PORT  ORIGIN  AGE  HELD\n"
        "blue     acme    02:00:00:00:00:01  tap0  static    -     -\n"
    )
    assert blue("fdb list --segment red").out.count("\n") == 1


def test_a_port_shows_why_it_is_pending(blue: Vxagent) -> None:
    assert blue("port attach tap9 --segment blue").out == f"port tap9 attached; {TAP9_WAITS}\n"
    shown = blue("port show tap9").out
    assert TAP9_WAITS in shown
    assert json.loads(blue("port show tap9 --json").out)["why"] == TAP9_WAITS


def test_export_prints_what_apply_takes_back(blue: Vxagent, tmp_path: Path) -> None:
    blue("port set tap0 --mac 02:00:00:00:00:01 --isolated --max-macs 7")
    blue("uplink add eth1")
    exported = blue("export").out
    file = tmp_path / "exported.toml"
    file.write_text(exported)
    assert blue("diff --prune", str(file)) == Ran(0, "no difference\n", "")
    assert blue("apply", str(file)) == Ran(0, "nothing to change\n", "")
    assert blue("export").out == exported
    assert json.loads(blue("export --json").out)["segment"][0]["name"] == "blue"


def test_a_long_fdb_is_passed_through(host: ServedHost, blue: Vxagent) -> None:
    def fdb(*, segment: int | None = None) -> Iterator[FdbEntry]:
        for mac in range(30_000):
            yield FdbEntry(segment=1, mac=mac, port=1, origin=Origin.LEARNED, age_s=1.0)

    host.datapath.fdb = fdb  # type: ignore[method-assign]  # a fault
    assert len(json.loads(blue("fdb list --json").out)) == 30_000
    assert blue("fdb list").out.count("\n") == 30_001


# --- changing ------------------------------------------------------------------------------------


def test_every_option_of_attach_reaches_the_port(blue: Vxagent) -> None:
    ran = blue(
        "port attach tap1 --id vm1 --segment blue --mac 02-00-00-00-00-0A --mac 02:00:00:00:00:0b --ip 10.0.0.1 "
        "--ip fd00::/64 --isolated --trusted --hook tc --max-macs 5 --rate-in 0.1Gbit --rate-out 1000pps "
        "--learn-rate 7 --storm-broadcast 10 --storm-multicast 20 --storm-unknown 30 --dhcp-snoop --enforce shadow"
    )
    assert (ran.code, ran.out, ran.err) == (0, "port vm1 attached\n", "")
    port = json.loads(blue("port show vm1 --json").out)
    assert (port["ifname"], port["macs"]) == ("tap1", ["02:00:00:00:00:0a", "02:00:00:00:00:0b"])
    assert (port["ips"], port["isolated"], port["trusted"]) == (["10.0.0.1", "fd00::/64"], True, True)
    assert (port["hook_asked"], port["max_macs"], port["learn_rate"]) == ("tc", 5, 7)
    assert (port["rate_in"], port["rate_out"]) == ("100Mbit", "1kpps")
    assert [port[f"storm_{kind}"] for kind in ("broadcast", "multicast", "unknown")] == [10, 20, 30]
    assert (port["dhcp_snoop"], port["enforce"]) == (True, "shadow")


def test_every_option_of_set_reaches_the_port_and_lists_are_replaced(blue: Vxagent) -> None:
    assert json.loads(blue("port show tap0 --json").out)["enforce"] == "on"
    blue("port set tap0 --mac 02:00:00:00:00:01 --ip 10.0.0.1 --isolated --trusted --hook tc --max-macs 5")
    blue("port set tap0 --dhcp-snoop --enforce shadow")
    [shown, *_] = json.loads(blue("port list --json").out)
    assert (shown["dhcp_snoop"], shown["enforce"]) == (True, "shadow")
    assert blue("port set tap0 --no-dhcp-snoop") == Ran(0, "port tap0 changed\n", "")
    assert blue("port set tap0 --mac 02:00:00:00:00:02 --no-isolated --no-trusted --hook auto --enforce on").err == ""
    assert blue("port set tap0 --ip 10.0.0.2").err == ""
    port = json.loads(blue("port show tap0 --json").out)
    assert (port["macs"], port["ips"]) == (["02:00:00:00:00:02"], ["10.0.0.2"])
    assert (port["isolated"], port["trusted"], port["hook_asked"]) == (False, False, "auto")
    assert (port["dhcp_snoop"], port["enforce"]) == (False, "on")
    assert blue("port set tap0 --no-mac --no-ip") == Ran(0, "port tap0 changed\n", "")
    assert blue("port set tap0 --no-mac") == Ran(0, "port tap0 is so already\n", "")
    port = json.loads(blue("port show tap0 --json").out)
    assert (port["macs"], port["ips"], port["max_macs"]) == ([], [], 5)


LIMITS = {"rate-in": "1Gbit,100kpps", "rate-out": "500kbit", "storm-broadcast": 1, "storm-multicast": 2}
LIMITS["storm-unknown"] = 3


@pytest.mark.parametrize(("option", "value"), LIMITS.items())
def test_a_limit_is_set_listed_exported_and_cleared(blue: Vxagent, option: str, value: object) -> None:
    key = option.replace("-", "_")
    assert blue(f"port set tap0 --{option} {value}") == Ran(0, "port tap0 changed\n", "")
    listed = {port["id"]: port[key] for port in json.loads(blue("port list --json").out)}
    assert (listed["tap0"], json.loads(blue("port show tap0 --json").out)[key]) == (value, value)
    assert f"{key} = {json.dumps(value)}\n" in blue("export").out
    refused = blue(f"port set tap0 --{option} {value} --no-{option}")
    assert (refused.code, f"--{option} and --no-{option} contradict each other" in refused.err) == (2, True)
    assert blue(f"port set tap0 --no-{option}") == Ran(0, "port tap0 changed\n", "")
    assert json.loads(blue("port show tap0 --json").out)[key] is None
    assert key not in blue("export").out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--rate-in 1Gb", "rate_in '1Gb': must be bit/s such as 100Mbit"),
        ("--rate-out 10bit", "rate_out '10bit': must be whole and 1kbit to 1Tbit"),
        ("--storm-unknown 0", "storm_unknown 0: must be 1 to"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(blue: Vxagent, options: str, says: str) -> None:
    refused = blue(f"port set tap0 {options}")
    assert (refused.code, says in refused.err) == (1, True)


def test_a_port_learns_at_a_rate_unless_told_otherwise(blue: Vxagent) -> None:
    def shown() -> object:
        return json.loads(blue("port show tap0 --json").out)["learn_rate"]

    assert (shown(), "learn_rate" in blue("export").out) == (1000, False)
    blue("port set tap0 --learn-rate 7")
    assert (shown(), "learn_rate = 7\n" in blue("export").out) == (7, True)
    assert blue("port set tap0 --no-learn-rate").out == "port tap0 changed\n"
    assert (shown(), "learn_rate = 0\n" in blue("export").out) == (None, True)
    refused = blue("port set tap0 --learn-rate 7 --no-learn-rate")
    assert (refused.code, "--learn-rate and --no-learn-rate contradict each other" in refused.err) == (2, True)


def test_a_port_is_attached_with_no_rate_of_learning(blue: Vxagent) -> None:
    blue("port attach tap1 --segment blue --no-learn-rate")
    assert json.loads(blue("port show tap1 --json").out)["learn_rate"] is None
    assert blue("port attach tap1 --segment blue --learn-rate 0").out == "port tap1 is attached already\n"


def test_a_trunk_can_be_given_at_once_or_in_pieces(blue: Vxagent) -> None:
    blue("port attach tap1 --trunk blue:10 --trunk red:20")
    blue("port set tap1 --trunk blue:30 --native red")
    port = json.loads(blue("port show tap1 --json").out)
    assert port["segments"] == [{"segment": "red", "vid": None}, {"segment": "blue", "vid": 30}]
    blue("port set tap1 --no-native")
    assert json.loads(blue("port show tap1 --json").out)["segments"] == [{"segment": "blue", "vid": 30}]
    blue("port set tap1 --segment red")
    assert json.loads(blue("port show tap1 --json").out)["mode"] == "access"


def test_an_internal_port_is_named_by_its_device(blue: Vxagent) -> None:
    assert blue("port attach --internal host0 --segment blue").out == "port host0 attached\n"
    port = json.loads(blue("port show host0 --json").out)
    assert (port["mode"], port["ifname"]) == ("internal", "host0")


def test_every_option_of_a_segment_is_set_and_cleared(blue: Vxagent) -> None:
    blue("segment set red --tenant evil --vlan 20 --vni 5020 --mtu 9000 --unknown-unicast drop --multicast-snooping")
    segment = json.loads(blue("segment show red --json").out)
    assert (segment["tenant"], segment["vlan"], segment["vni"]) == ("evil", 20, 5020)
    assert (segment["mtu"], segment["unknown_unicast"], segment["multicast_snooping"]) == (9000, "drop", True)
    assert blue("segment set red --no-vlan --no-vni --no-multicast-snooping").out == "segment red changed\n"
    segment = json.loads(blue("segment show red --json").out)
    assert (segment["vlan"], segment["vni"], segment["mtu"], segment["multicast_snooping"]) == (None, None, 9000, False)


def test_what_is_there_can_be_taken_away_once(blue: Vxagent) -> None:
    blue("uplink add eth1")
    blue("fdb add 02:00:00:00:00:01 --segment blue --port tap0")
    for line, said in [
        ("fdb del 02:00:00:00:00:01 --segment blue", "02:00:00:00:00:01 deleted\n"),
        ("port detach tap0", "port tap0 detached\n"),
        ("segment del blue", "segment blue deleted\n"),
        ("uplink del eth1", "uplink eth1 deleted\n"),
    ]:
        assert blue(line) == Ran(0, said, "")
        assert blue(line).code == 1


def test_flush_says_how_much_it_forgot(blue: Vxagent) -> None:
    assert blue("fdb flush --segment blue --port tap0").out == "0 learned entries forgotten\n"


def test_apply_prints_what_it_changed_and_diff_what_it_would(
    host: ServedHost, vxagent: Vxagent, tmp_path: Path
) -> None:
    file = tmp_path / "net.toml"
    file.write_text(DOCUMENT)
    would = vxagent("diff", str(file))
    assert would == Ran(0, "+ segment blue\n+ port tap0\n", "")
    assert vxagent("apply", str(file)) == would
    assert vxagent("apply", str(file)).out == "nothing to change\n"
    file.write_text(DOCUMENT.replace('tenant = "acme"', 'tenant = "acme"\nmtu = 9000'))
    assert vxagent("diff", str(file)).out == "~ segment blue: mtu 1500 -> 9000\n"
    assert json.loads(vxagent("diff --json", str(file)).out)[0]["name"] == "blue"


def test_apply_takes_away_only_what_it_made_unless_told(blue: Vxagent, tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.write_text("")
    assert blue("apply", str(file)).out == "nothing to change\n"
    assert set(blue("apply --prune", str(file)).out.splitlines()) == {"- segment blue", "- segment red", "- port tap0"}


def test_apply_reads_stdin(host: ServedHost, vxagent: Vxagent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text(DOCUMENT + "mtu = 1\n")
    with file.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert_refused(vxagent("apply -"), 1, "stdin:9: mtu: is not a known key")


def test_apply_names_file_and_line_of_text_that_is_not_utf8(host: ServedHost, vxagent: Vxagent, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_bytes(b"# fine\n# \xff\n")
    assert_refused(vxagent("apply", str(file)), 1, f"{file}:2: not UTF-8 text")


def test_a_document_larger_than_the_api_takes_is_refused(host: ServedHost, vxagent: Vxagent, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text("# " + "x" * (17 << 20))
    assert_refused(vxagent("apply", str(file)), 1, "body: is larger than")


def test_reload_says_so(host: ServedHost, vxagent: Vxagent) -> None:
    assert vxagent("reload") == Ran(0, "reloaded\n", "")


@pytest.mark.parametrize(("how", "said"), [("stop", "forwarding goes on"), ("down", "switch taken off")])
def test_stop_and_down_return_when_the_process_has_ended(vxagent: Vxagent, tmp_path: Path, how: str, said: str) -> None:
    command = [sys.executable, "-m", "support.agents", str(tmp_path)]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "ready\n"
            ran = vxagent(how)
            assert (ran.code, ran.err) == (0, "")
            assert said in ran.out
            assert agent.wait(0) == 0  # no time is left to it
        finally:
            agent.kill()


@dataclass
class Main:
    """Stands for `vxagent.main` and remembers what was asked of it."""

    asked: list[tuple[str, Options]] = field(default_factory=list)

    def run(self, options: Options) -> None:
        self.asked.append(("run", options))

    def run_detached(self, options: Options) -> int:
        self.asked.append(("run_detached", options))
        return 7

    def down_without_agent(self, options: Options) -> None:
        self.asked.append(("down_without_agent", options))


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Main:
    main = Main()
    for name in ("run", "run_detached", "down_without_agent"):
        monkeypatch.setattr(f"vxagent.main.{name}", getattr(main, name))
    return main


def test_up_starts_an_agent_as_it_was_told(vxagent: Vxagent, main: Main, tmp_path: Path) -> None:
    assert vxagent("up") == Ran(0, "", "")
    assert vxagent("up --detach --config c.toml --netns blue --state-dir state").out == "vxagent runs, pid 7\n"
    assert main.asked == [
        ("run", Options(run_dir=tmp_path)),
        ("run_detached", Options(run_dir=tmp_path, config=Path("c.toml"), netns="blue", state_dir=Path("state"))),
    ]


def test_down_works_without_an_agent(vxagent: Vxagent, main: Main, tmp_path: Path) -> None:
    assert vxagent("down").code == 0
    assert main.asked == [("down_without_agent", Options(run_dir=tmp_path))]


GOOD = Finding(level=Level.OK, what="kernel 6.18")
BAD = Finding(level=Level.BAD, what="this process lacks CAP_BPF", mend="run as root")


def test_doctor_says_what_is_good_and_what_to_mend(
    host: ServedHost, vxagent: Vxagent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vxagent.runtime.api.examine", lambda _: [GOOD])
    assert vxagent("doctor") == Ran(0, "ok    kernel 6.18\n", "")
    monkeypatch.setattr("vxagent.runtime.api.examine", lambda _: [GOOD, BAD])
    ran = vxagent("doctor")
    assert (ran.code, ran.err) == (1, "vxagent: bad findings: 1; mend them as they say\n")
    assert ran.out == "ok    kernel 6.18\nbad   this process lacks CAP_BPF; run as root\n"


def test_doctor_works_without_an_agent(vxagent: Vxagent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vxagent.main.doctor_without_agent", lambda: [GOOD, BAD])
    ran = vxagent("doctor --json")
    assert ran.code == 1
    assert json.loads(ran.out) == [
        {"level": "ok", "what": "kernel 6.18", "mend": ""},
        {"level": "bad", "what": "this process lacks CAP_BPF", "mend": "run as root"},
    ]


# --- the process ---------------------------------------------------------------------------------


def test_version() -> None:
    ran = subprocess.run([sys.executable, "-m", "vxagent_cli", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("vxagent ")


def test_nothing_heavy_is_imported_to_read_a_command_line() -> None:
    code = "import sys, vxagent_cli.app; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(ran.stdout.split())
    heavy = {
        "asyncio",
        "msgspec",
        "prometheus_client",
        "pydantic",
        "pyroute2",
        "rich",
        "sqlite3",
        "starlette",
        "uvicorn",
    }
    assert not modules & heavy
    assert {name for name in modules if name.startswith("vxagent.")} == {"vxagent.errors"}


def test_a_reader_that_goes_away_is_no_traceback(host: ServedHost) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        ran = subprocess.run(
            [sys.executable, "-m", "vxagent_cli", "--run-dir", str(host.run_dir), "status"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, "")

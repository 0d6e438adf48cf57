"""The API over a socket: answers, refusals, and a fuzz from the schema that it serves."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from support.agents import ServedHost
from vxagent.core.tables import Origin
from vxagent.datapath.base import Drop, FdbEntry
from vxagent.datapath.fake_forwarding import Frame
from vxagent.errors import HostError
from vxagent.protocol import requests
from vxagent.runtime.openapi import openapi
from vxagent.runtime.operation import BODY_LIMIT, OPERATIONS

SCHEMA = openapi(OPERATIONS, "0")
BLUE = {"name": "blue", "tenant": "acme", "vlan": 10}
MAC = "02:00:00:00:00:01"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ServedHost]:
    with ServedHost(tmp_path) as host:
        yield host


@pytest.fixture
def api(host: ServedHost) -> Iterator[httpx.Client]:
    with client_of(host) as client:
        yield client


def client_of(host: ServedHost) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(host.run_dir / "api.sock"))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=20)


def learned(*, segment: int | None = None) -> Iterator[FdbEntry]:
    """A long FDB."""
    for mac in range(20_000):
        yield FdbEntry(segment=1, mac=mac, port=0, origin=Origin.LEARNED, age_s=1.25)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """(status, message) of an answer that must be a refusal in the API's one shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message", "exit_code"}
    assert "\n" not in body["error"]["message"]
    return response.status_code, body["error"]["message"]


# --- answers -------------------------------------------------------------------------------------


def test_status_has_the_keys_that_others_rely_on(api: httpx.Client) -> None:
    status = api.get("/v1/status").json()
    assert list(status) == [
        "version", "host", "ready", "pid", "uptime_s", "ports", "segments", "fdb_entries", "cluster",
        "overlay", "drift", "repairs", "postponed", "foreign",
    ]  # fmt: skip
    assert (status["host"], status["ready"], status["cluster"]) == ("hv1", True, "off")


def test_adding_a_segment_twice_changes_it_once(api: httpx.Client) -> None:
    assert api.post("/v1/segments", json=BLUE).json()["changed"] is True
    assert api.post("/v1/segments", json=BLUE).json()["changed"] is False
    assert [s["name"] for s in api.get("/v1/segments").json()] == ["blue"]


def test_setting_null_clears_and_what_is_not_given_stays(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE | {"mtu": 9000})
    assert api.patch("/v1/segments/blue", json={"vlan": None}).json()["changed"] is True
    [segment] = api.get("/v1/segments").json()
    assert (segment["vlan"], segment["mtu"], segment["tenant"]) == (None, 9000, "acme")


def test_setting_what_is_so_already_changes_nothing(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    assert api.patch("/v1/segments/blue", json={"vlan": 10}).json()["changed"] is False


def test_a_port_whose_device_is_not_there_is_attached_and_says_why_it_waits(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    answer = api.post("/v1/ports", json={"ifname": "tap9", "segment": "blue"}).json()
    assert answer == {"changed": True, "note": "device tap9 is not there", "warnings": []}
    [port] = api.get("/v1/ports").json()
    assert (port["id"], port["state"]) == ("tap9", "pending")


def test_a_listed_ip_is_kept(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    answer = api.post("/v1/ports", json={"ifname": "tap0", "segment": "blue", "ip": ["10.0.0.1"]}).json()
    assert answer["warnings"] == []
    assert api.get("/v1/ports/tap0").json()["ips"] == ["10.0.0.1"]
    assert api.patch("/v1/ports/tap0", json={"ip": []}).json()["changed"]
    assert api.get("/v1/ports/tap0").json()["ips"] == []


def test_a_trunk_port_becomes_an_access_port_and_back(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    api.post("/v1/ports", json={"ifname": "tap0", "trunk": ["blue:20"]})
    assert api.get("/v1/ports/tap0").json()["segments"] == [{"segment": "blue", "vid": 20}]
    api.patch("/v1/ports/tap0", json={"segment": "blue"})
    assert api.get("/v1/ports/tap0").json()["segments"] == [{"segment": "blue", "vid": None}]
    api.patch("/v1/ports/tap0", json={"trunk": ["blue:30"]})
    assert api.get("/v1/ports/tap0").json()["mode"] == "trunk"


def test_static_entries_come_and_go_however_the_mac_is_written(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    api.post("/v1/ports", json={"ifname": "tap0", "segment": "blue"})
    api.post("/v1/fdb", json={"segment": "blue", "mac": "02-00-00-00-00-0A", "port": "tap0"})
    assert api.get("/v1/fdb").json() == [
        {"segment": "blue", "tenant": "acme", "mac": "02:00:00:00:00:0a", "port": "tap0", "vtep": None}
        | {"origin": "static", "age_s": None, "held_s": None}
    ]
    assert api.delete("/v1/fdb/blue/02:00:00:00:00:0A").status_code == 200
    assert api.get("/v1/fdb").json() == []


def test_a_flush_says_how_many_entries_went(host: ServedHost, api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    api.post("/v1/ports", json={"ifname": "tap0", "segment": "blue"})
    for source in (0x020000000001, 0x020000000002):
        host.datapath.forward(10, Frame(src=source, dst=0x0200000000FF))
    assert api.post("/v1/fdb/flush", json={"port": "tap0"}).json() == {"removed": 2}
    assert api.post("/v1/fdb/flush").json() == {"removed": 0}


def test_apply_then_export_then_diff_says_nothing_changed(api: httpx.Client) -> None:
    text = '[[segment]]\nname = "blue"\ntenant = "acme"\n[[port]]\nifname = "tap0"\nsegment = "blue"\n'
    changes = api.post("/v1/apply", json={"text": text}).json()["changes"]
    assert [(c["action"], c["kind"], c["name"]) for c in changes] == [
        ("add", "segment", "blue"),
        ("add", "port", "tap0"),
    ]
    exported = api.get("/v1/export").text
    assert api.post("/v1/diff", json={"text": exported, "prune": True}).json()["changes"] == []


def test_diff_says_what_apply_would_do_and_does_nothing(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    changes = api.post("/v1/diff", json={"text": "", "prune": True}).json()["changes"]
    assert changes == [{"action": "delete", "kind": "segment", "name": "blue", "what": []}]
    assert len(api.get("/v1/segments").json()) == 1


def test_export_comes_as_toml_or_json(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    assert api.get("/v1/export").headers["content-type"].startswith("application/toml")
    assert api.get("/v1/export", params={"form": "json"}).json() == {"segment": [BLUE]}


def test_a_long_list_comes_in_many_chunks_one_object_a_line(host: ServedHost, api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    host.datapath.fdb = learned  # type: ignore[method-assign]  # a fault
    with api.stream("GET", "/v1/fdb") as response:
        chunks = list(response.iter_raw())
    content = b"".join(chunks)
    assert len(chunks) >= 5
    assert max(map(len, chunks)) < len(content) / 2
    assert len(json.loads(content)) == 20_000
    first = content.splitlines()[1].removesuffix(b",")
    assert json.loads(first)["mac"] == "00:00:00:00:00:00"


def test_reload_goes_through(host: ServedHost, api: httpx.Client) -> None:
    before = host.datapath.reloads
    assert api.post("/v1/reload").status_code == 200
    assert host.datapath.reloads == before + 1


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"name": "blue"}', "tenant: is missing"),
        ('{"name": "blue", "tenant": "a", "vlan": "x"}', "vlan: must be a whole number, not text"),
        ('{"name": "blue", "tenant": "a", "vlan": true}', "vlan: must be a whole number, not true or false"),
        ('{"name": "blue", "tenant": "a", "colour": 1}', "colour: is not a known key"),
        ('{"name": "blue", "tenant": "a", "vlan": 4095}', "vlan 4095: must be 1 to 4094"),
        ('{"name": "blue", "tenant": "a", "unknown_unicast": "maybe"}', "unknown_unicast: must be flood or drop"),
        ("[]", "body: must be a table, not a list"),
        ('{"name"', "body: is not JSON"),
        ("", "name: is missing"),
        ('{"name": "\\ud800", "tenant": "a"}', "body: is not JSON"),
        ('{"name": "a\\u0000b", "tenant": "a"}', "segment 'a\\x00b': a name has"),
        ('{"name": "blue", "tenant": "a", "mtu": 1e999}', "mtu: number out of range"),
        (
            '{"name": "blue", "tenant": "a", "mtu": 123456789012345678901234567890}',
            "mtu 123456789012345678901234567890",
        ),
        ("[" * 100_000, "body: must be a table, not a list"),
    ],
)
def test_a_body_of_the_wrong_shape_gets_a_clear_line(api: httpx.Client, body: str, message: str) -> None:
    status, said = refusal(api.post("/v1/segments", content=body))
    assert status == 422
    assert said.startswith(message)
    assert api.get("/v1/segments").json() == []


def test_a_body_that_is_not_utf8_is_refused(api: httpx.Client) -> None:
    assert refusal(api.post("/v1/segments", content=b'{"name": "\xff"}'))[0] == 422


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_body_is_refused_without_being_read_whole(api: httpx.Client, announced: bool) -> None:
    piece = b"x" * BODY_LIMIT
    content = piece * 2 if announced else iter([piece] * 64)
    status, said = refusal(api.post("/v1/segments", content=content))
    assert (status, said) == (413, f"body: is larger than {BODY_LIMIT} bytes")


def test_a_document_may_be_larger_than_other_bodies(api: httpx.Client) -> None:
    text = "# " + "x" * BODY_LIMIT
    assert api.post("/v1/apply", json={"text": text}).json() == {"changes": [], "warnings": []}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/nothing", 404, "GET /v1/nothing: not found"),
        ("GET", "/v1/ports/", 404, "GET /v1/ports/: not found"),
        ("PUT", "/v1/ports", 405, "PUT /v1/ports: method not allowed"),
        ("GET", "/v1/ports/nope", 404, "no port nope; see `vxagent port list`"),
        ("DELETE", "/v1/segments/nope", 404, "no segment nope; see `vxagent segment list`"),
        ("GET", "/v1/fdb?segment=nope", 404, "no segment nope; see `vxagent segment list`"),
        ("GET", "/v1/drops?port=nope", 404, "no port nope; see `vxagent port list`"),
        ("GET", "/v1/drops?prot=tap0", 422, "prot: is not a known parameter"),
        ("GET", "/v1/export?form=xml", 422, "form 'xml': must be toml or json"),
        ("DELETE", "/v1/fdb/blue/xx", 422, "mac 'xx': a MAC has six octets such as 02:00:00:00:00:01"),
    ],
)
def test_what_cannot_be_asked_is_refused(api: httpx.Client, method: str, path: str, status: int, message: str) -> None:
    assert refusal(api.request(method, path)) == (status, message)


def test_a_wrong_method_says_which_are_right(api: httpx.Client) -> None:
    assert set(api.put("/v1/ports").headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_deleting_a_segment_in_use_names_the_port(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    api.post("/v1/ports", json={"ifname": "tap0", "segment": "blue"})
    assert refusal(api.delete("/v1/segments/blue")) == (
        409, "segment blue is in use by port tap0; detach or move its ports first",
    )  # fmt: skip


def test_an_uplink_runs_at_xdp_unless_it_is_asked_not_to(api: httpx.Client) -> None:
    shown = []
    for hook in ("xdp", "auto", "tc"):
        assert api.post("/v1/uplinks", json={"ifname": "eth1", "hook": hook}).json()["changed"] is True
        [uplink] = api.get("/v1/uplinks").json()
        shown.append((uplink["hook"], uplink["hook_why"]))
        api.delete("/v1/uplinks/eth1")
    assert shown == [("xdp+tc", ""), ("xdp+tc", ""), ("tc", "asked for by --hook tc")]


def test_a_port_shows_where_it_runs_and_why_not_at_xdp(api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    for ifname in ("tap0", "veth2"):
        api.post("/v1/ports", json={"ifname": ifname, "segment": "blue"})
    veth = ("tc", "a device of kind veth: tc is the faster hook there")
    assert [(p["hook"], p["hook_why"]) for p in api.get("/v1/ports").json()] == [("xdp+tc", ""), veth]
    assert api.patch("/v1/ports/tap0", json={"hook": "tc"}).json()["changed"] is True
    port = api.get("/v1/ports/tap0").json()
    assert (port["hook"], port["hook_why"], port["hook_asked"]) == ("tc", "asked for by --hook tc", "tc")


def test_one_wrong_entry_of_a_document_changes_nothing(api: httpx.Client) -> None:
    good = "".join(f'[[segment]]\nname = "s{n}"\ntenant = "acme"\n' for n in range(100))
    text = f'{good}[[segment]]\nname = "bad"\ntenant = "acme"\nvlan = 4095\n'
    status, said = refusal(api.post("/v1/apply", json={"text": text, "file": "net.toml"}))
    assert (status, said) == (422, "net.toml:304: vlan 4095: must be 1 to 4094")
    assert api.get("/v1/segments").json() == []


def test_a_host_that_fails_is_a_refusal_and_undoes_the_change(host: ServedHost, api: httpx.Client) -> None:
    api.post("/v1/segments", json=BLUE)
    host.datapath.fail_at = 1
    status, said = refusal(api.post("/v1/ports", json={"ifname": "tap0", "segment": "blue"}))
    assert (status, said) == (500, "the fake was told to fail here")
    assert api.get("/v1/ports").json() == []


def test_what_the_machine_lacks_is_said_in_words(
    host: ServedHost, api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    host.datapath.broken["reload"] = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/run/x/bpf/v1")
    with caplog.at_level(logging.INFO):
        status, said = refusal(api.post("/v1/reload"))
    what = "POST /v1/reload failed: Too many open files (/run/x/bpf/v1)"
    assert (status, said) == (
        500, f"{what}; let the agent open more files: LimitNOFILE= of its unit, or `ulimit -n`"
    )  # fmt: skip
    assert f"refused: {said}" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_a_list_that_fails_before_its_first_row_is_a_refusal(host: ServedHost, api: httpx.Client) -> None:
    def broken() -> list[Drop]:
        raise HostError("map drops cannot be read")

    host.datapath.drops = broken  # type: ignore[method-assign]  # a fault
    assert refusal(api.get("/v1/drops")) == (500, "map drops cannot be read")


def test_a_bug_is_answered_and_logged(host: ServedHost, api: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    host.datapath.fdb_count = lambda: 1 // 0  # type: ignore[method-assign]  # a fault
    status, said = refusal(api.get("/v1/status"))
    assert status == 500
    assert "ZeroDivisionError" in said
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)


# --- the schema ----------------------------------------------------------------------------------


def test_the_schema_is_served(api: httpx.Client) -> None:
    served = api.get("/openapi.json").json()
    assert served["paths"].keys() == SCHEMA["paths"].keys()
    assert served["components"] == json.loads(json.dumps(SCHEMA["components"]))


def test_every_operation_has_a_name_and_a_summary_of_its_own() -> None:
    operations = [o for methods in SCHEMA["paths"].values() for o in methods.values()]
    for key in ("operationId", "summary"):
        values = [o[key] for o in operations]
        assert all(values)
        assert len(set(values)) == len(values)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One host for the whole fuzz, so that its state gets strange."""
    with ServedHost(tmp_path_factory.mktemp("fuzz")) as host, client_of(host) as client:
        client.post("/v1/segments", json=BLUE)
        client.post("/v1/ports", json={"ifname": "tap0", "segment": "blue"})
        yield client


# `stop` and `down` would end the agent.
@pytest.mark.parametrize(
    ("kind", "text", "path", "body"),
    [
        (requests.Ifname, "#Ì", "uplinks", {"ifname": "#Ì"}),
        (requests.Mac, "02-00-00-00-00-0A", "ports", {"segment": "blue", "mac": ["02-00-00-00-00-0A"]}),
        (requests.TrunkItem, "blue:00010", "ports", {"trunk": ["blue:00010"]}),
    ],
)
def test_the_schema_rules_nothing_out_that_is_taken(
    api: httpx.Client, kind: Any, text: str, path: str, body: dict[str, Any]
) -> None:
    api.post("/v1/segments", json=BLUE)
    assert api.post(f"/v1/{path}", json={"ifname": "tap1"} | body).status_code == 200
    assert re.fullmatch(kind.__metadata__[0].extra_json_schema["pattern"], text)


fuzz = schemathesis.openapi.from_dict(SCHEMA).exclude(path_regex="^/v1/(stop|down)$")


@fuzz.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_makes_the_agent_fail(case: Case[Any], fuzzed: httpx.Client) -> None:
    arguments: dict[str, Any] = case.as_transport_kwargs(base_url="http://localhost")
    arguments.pop("cookies", None)
    if "data" in arguments:
        arguments["content"] = arguments.pop("data")
    response = fuzzed.request(**arguments)
    assert response.status_code < 500, response.text
    case.validate_response(response, excluded_checks=[positive_data_acceptance])  # the schema is not all of the rules

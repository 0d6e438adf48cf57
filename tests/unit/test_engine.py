"""The way to the engine: endpoints, and that its client is an extra which nobody imports unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vxagent.errors import Invalid
from vxagent.store.engine import check_endpoints

# A finder in front of all others, as on a host that has none of these.
WITHOUT_EXTRA = """
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("google", "grpc"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def run(code: str) -> str:
    done = subprocess.run(
        (sys.executable, "-c", WITHOUT_EXTRA + code), check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_the_extra_everything_but_the_client_itself_is_there() -> None:
    code = """
import vxagent, vxagent_cli
missing = []
for package in (vxagent, vxagent_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing.append(module.name)
print(*missing)
"""
    assert run(code).split() == ["vxagent.store.etcd", "vxagent.store.etcd_messages"]


def test_without_the_extra_a_cluster_is_refused_with_what_to_install() -> None:
    code = """
from vxagent.errors import HostError
from vxagent.store.engine import connect
try:
    connect(["http://127.0.0.1:2379"])
except HostError as error:
    print(error)
"""
    assert run(code) == (
        "the client of etcd is not installed (No module named 'grpc'); install it: pip install 'vxagent[cluster]'"
    )


def test_with_the_extra_it_is_imported_when_it_is_asked_for() -> None:
    code = """
import sys, vxagent.runtime.process, vxagent.store.cluster, vxagent.store.engine
print(sorted({name.partition(".")[0] for name in sys.modules} & {"google", "grpc"}))
"""
    done = subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "endpoints",
    [
        ["http://192.0.2.5:2379"],
        ["https://etcd1.example:2379", "https://etcd2.example:2379"],
        ["http://[2001:db8::5]:2379"],
    ],
)
def test_endpoints(endpoints: list[str]) -> None:
    assert check_endpoints(endpoints) == tuple(endpoints)
    assert check_endpoints([f"{endpoint}/" for endpoint in endpoints]) == tuple(endpoints)


@pytest.mark.parametrize(
    "endpoints",
    [
        [],
        ["192.0.2.5:2379"],
        ["http://192.0.2.5"],
        ["http://192.0.2.5:99999"],
        ["http://:2379"],
        ["ftp://192.0.2.5:2379"],
        ["http://user@192.0.2.5:2379"],
        ["http://192.0.2.5:2379/v3"],
        ["http://[2001:db8::5:2379"],
        ["http://192.0.2.5:2379", "https://192.0.2.6:2379"],
    ],
)
def test_what_is_no_endpoint(endpoints: list[str]) -> None:
    with pytest.raises(Invalid, match="endpoints"):
        check_endpoints(endpoints)

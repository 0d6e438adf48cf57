"""The verifiers of Debian's kernels take the switch's programs, with maps as large as the agent makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lan import clean_world
from vm.lab.guest import Guest
from vm.lab.vms import Vms
from vxagent.datapath import maps, source
from vxagent.datapath.programs import PROGRAMS

pytestmark = pytest.mark.timeout(600)

VERIFY_TIMEOUT_S = 400


def listing(directory: Path) -> Path:
    """The switch's maps and programs, as `files/verify.c` reads them."""
    sentinels = maps.sentinels()
    lines = [
        f"map {sentinels[spec.name]} {spec.type:d} {spec.key_size} {spec.value_size} {spec.max_entries} {spec.flags:d}"
        for spec in (*maps.declare(maps.DEFAULT_SIZES).values(), maps.progs_spec())
    ]
    code = source.load(directory).programs
    lines += [f"prog {spec.name} {spec.type:d} {spec.attach_type:d} {code[spec.name].hex()}" for spec in PROGRAMS]
    path = directory / "listing"
    text = "\n".join(lines) + "\n"
    path.write_text(text + "\n" * (-len(text) % 512))  # it becomes a disk
    return path


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """One that has the programs on its disk."""
    with clean_world() as world:
        outside = world.namespace("outside")
        guest = Vms(world).small(outside, series=request.param, memory_mb=1024, media=listing(world.directory()))
        guest.wait_up()
        yield guest


@pytest.mark.parametrize("program", [spec.name for spec in PROGRAMS])
def test_a_program_is_verified(guest: Guest, program: str) -> None:
    said = guest.run("verify", "/dev/vda", program, check=False, within=VERIFY_TIMEOUT_S)
    assert said.code == 0, said.output

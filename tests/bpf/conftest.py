"""What the tests of the data plane and of the loader share. They need root (or the capabilities)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.place import Place, a_place
from support.rig import Rig
from support.wires import Wires
from support.world import PORTS, World
from vxagent.datapath import bytecode, source, toolchain
from vxagent.datapath.bpf_prog import Program
from vxagent.datapath.ring import RingReader


@pytest.fixture(scope="session")
def bytecode_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for bytecode: every C file is compiled once in a session."""
    return tmp_path_factory.mktemp("bytecode")


def origins() -> list[str]:
    """Which bytecode the rows are run on: what is shipped and, when another compiler made that, what this one makes."""
    switch = source.switch()
    shipped = bytecode.read(source.SHIPPED, switch.digest())
    if shipped is None:
        return ["fresh"]
    fresh = toolchain.compile_programs(switch.main, switch.directory, switch.flags, switch.programs)
    return ["shipped"] if (shipped.bcc, shipped.llvm) == (fresh.bcc, fresh.llvm) else ["shipped", "fresh"]


@pytest.fixture(scope="session", params=origins())
def loaded(request: pytest.FixtureRequest, bytecode_cache: Path) -> Iterator[Rig]:
    """The switch's programs, loaded once."""
    none = bytecode_cache / "none"
    rig = Rig(bytecode_cache, shipped=none if request.param == "fresh" else source.SHIPPED)
    yield rig
    rig.close()


@pytest.fixture
def rig(loaded: Rig) -> Rig:
    """The switch's programs with empty maps."""
    loaded.clear()
    return loaded


@pytest.fixture(scope="session")
def wires(loaded: Rig) -> Iterator[Wires]:
    """A tap for each port, with the program on it."""
    taps = Wires(PORTS, loaded.program("vx_tc"), loaded.program("vx_xdp"))
    yield taps
    taps.close()


@pytest.fixture(scope="session")
def prelude(loaded: Rig) -> Program:
    """Puts a tag into skb->vlan_tci and goes on as vx_tc."""
    return loaded.prelude()


@pytest.fixture
def world(rig: Rig, wires: Wires, prelude: Program) -> World:
    """The switch that `support.world` draws, with no traffic yet."""
    return World(rig, wires, prelude)


@pytest.fixture
def ring(world: World) -> Iterator[RingReader]:
    """The event ring of the world; what an earlier test left in it is gone."""
    ring = RingReader(world.rig.maps["events"])
    ring.read()
    yield ring
    ring.close()


@pytest.fixture
def place(bytecode_cache: Path) -> Iterator[Place]:
    """Where a data path can live on real devices; nothing of it may be left afterwards."""
    with a_place(bytecode_cache) as made:
        yield made
    assert not made.root.exists()

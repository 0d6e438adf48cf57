"""An agent that dies between the two programs of the underlay device leaves what the next one can tell."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from vxagent.core.effects import Attach, Detach
from vxagent.datapath import attachments
from vxagent.datapath.attachments import ClsactAttachments, TcxAttachments
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import Program
from vxagent.model.device import Device
from vxagent.netlink.fake import FakeLinks

HANDLE, IFINDEX = 3, 21
ATTACH = Attach(handle=HANDLE, ifindex=IFINDEX, ifname="eth1")
DETACH = Detach(handle=HANDLE, ifindex=IFINDEX, ifname="eth1")


class Died(Exception):
    """This process is no more."""


class Clsact(FakeLinks):
    """Dies after a number of steps."""

    left = 1_000  # steps

    def _step(self) -> None:
        self.left -= 1
        if not self.left:
            raise Died

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        super().attach_clsact(ifindex, program_fd, egress=egress)
        self._step()

    def detach_clsact(self, ifindex: int, *, egress: bool = False) -> None:
        super().detach_clsact(ifindex, egress=egress)
        self._step()


class Links:
    """Pinned links; they die likewise."""

    clsact: Clsact

    def __init__(self, path: Path, *_: object) -> None:
        self._egress = path.name == "out"

    def run(self, _handle: int, ifindex: int, _ifname: str, _program: Program) -> None:
        self.clsact.attach_clsact(ifindex, 0, egress=self._egress)

    def take_off(self, _handle: int) -> None:
        self.clsact.detach_clsact(IFINDEX, egress=self._egress)

    def ifindexes(self) -> dict[int, int]:
        return dict.fromkeys([HANDLE] * self.clsact.clsact_attached(IFINDEX), IFINDEX)


class Filter:
    """A program with a descriptor."""

    fd = 7


@pytest.fixture(params=["tcx", "clsact"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Clsact, attachments.Attachments]:
    clsact = Clsact([Device(ifname="eth1", ifindex=IFINDEX)])
    if request.param == "clsact":
        return clsact, ClsactAttachments(clsact, cast("Map", None))
    monkeypatch.setattr(Links, "clsact", clsact, raising=False)
    monkeypatch.setattr(attachments, "PinnedLinks", Links)
    return clsact, TcxAttachments(Path("links"), Path("out"))


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("into", ["nothing", "a device that is not the underlay"])
def test_whose_program_at_the_egress_is_left_has_one_at_the_ingress(
    both: tuple[Clsact, attachments.Attachments], into: str, after: int
) -> None:
    clsact, attached = both
    program = cast("Program", Filter())
    attached.attach(ATTACH, program, program)
    assert clsact.clsact_attached(IFINDEX, egress=True)
    clsact.left = after
    with pytest.raises(Died):
        attached.detach(DETACH) if into == "nothing" else attached.attach(ATTACH, program, None)
    assert not clsact.clsact_attached(IFINDEX, egress=True)
    assert clsact.clsact_attached(IFINDEX) is (after == 1 or into != "nothing")

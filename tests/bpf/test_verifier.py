"""What the kernel's verifier has to do for each program: most of the time that a start takes."""

from __future__ import annotations

import struct

import pytest

from support.rig import Rig
from vxagent.datapath import bpf
from vxagent.datapath.programs import PROGRAMS

LIMIT = 1_000_000  # <linux/bpf_verifier.h> BPF_COMPLEXITY_LIMIT_INSNS: beyond it a program is refused
ALLOWED = LIMIT * 3 // 10  # kernels count differently: what is near the limit here is beyond it elsewhere

_VERIFIED = struct.Struct("=216xI")  # struct bpf_prog_info: verified_insns


@pytest.mark.parametrize("name", [spec.name for spec in PROGRAMS])
def test_the_verifier_is_far_from_its_limit(loaded: Rig, name: str) -> None:
    (processed,) = _VERIFIED.unpack(bpf.info(loaded.program(name).fd, _VERIFIED.size, name))
    assert processed > 0
    assert processed <= ALLOWED, (
        f"the verifier processes {processed:,} instructions of {name}, more than {ALLOWED:,}: what do its paths carry "
        "along where they meet? bpf/README.md, 'What clang, BCC and the verifier want'"
    )

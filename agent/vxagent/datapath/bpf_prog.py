"""Programs: put map descriptors into bytecode, load it, run it on a frame."""

from __future__ import annotations

import ctypes
import errno
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from vxagent.datapath import bpf
from vxagent.datapath.bpf import BpfError, Command
from vxagent.errors import HostError

log = logging.getLogger(__name__)

LICENSE = b"GPL"

_INSN_SIZE = 8
_LD_IMM64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM, two instructions long
_PSEUDO_MAP_FD = 1
# type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, name, ifindex, attach_type
_LOAD = struct.Struct("=IIQQIIQII16sII")
# prog_fd, retval, data sizes in and out, data in and out, repeat, duration, ctx sizes and ctx in and out, flags, cpu,
# batch_size
_TEST_RUN = struct.Struct("=IIIIQQIIIIQQIII")
_PROG_INFO = struct.Struct("=II8s")  # type, id, tag
_GET_BY_ID = struct.Struct("=I")  # prog_id
_XDP_MD = struct.Struct("=6I")  # data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_LOG_SIZE = 1 << 24  # the verifier's log of the largest program, and below what the kernel takes
_ATTEMPTS = 5  # as many as libbpf makes
_LOG_LINES = 60  # of it that the agent's log gets: the last ones say why
_DATA_ROOM = 512  # a program may make the frame longer


class ProgType(IntEnum):
    """enum bpf_prog_type."""

    SCHED_CLS = 3
    XDP = 6


class AttachType(IntEnum):
    """enum bpf_attach_type; of a program that is loaded for none in particular it is 0."""

    NONE = 0
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgSpec:
    """A program: the name of its C function and what it is loaded as."""

    name: str
    type: ProgType
    attach_type: AttachType = AttachType.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """What one run gave: the verdict, the frame and the context afterwards, the mean time a run."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    verdict: int
    data: bytes
    ctx: bytes
    duration_ns: int


def relocate(code: bytes, fds: Mapping[int, int]) -> bytes:
    """Bytecode with each map's sentinel replaced by its descriptor.

    Args:
        fds: sentinel → descriptor.

    Raises:
        HostError: the code names a map that is not in `fds`.
    """
    out = bytearray(code)
    at = 0
    while at < len(out):
        opcode, registers, _, number = struct.unpack_from("=BBhi", out, at)
        if opcode == _LD_IMM64:
            if registers >> 4 == _PSEUDO_MAP_FD:
                if number not in fds:
                    raise HostError(f"the bytecode names map {number:#x}, which nobody declared")
                struct.pack_into("=i", out, at + 4, fds[number])
            at += _INSN_SIZE
        at += _INSN_SIZE
    return bytes(out)


class Program(bpf.Fd):
    """A loaded program."""

    def __init__(self, fd: int, spec: ProgSpec) -> None:
        super().__init__(fd)
        self.spec = spec

    @classmethod
    def load(cls, spec: ProgSpec, code: bytes) -> Program:
        """Load relocated bytecode.

        Raises:
            BpfError: the verifier refused; `log` is all that it said.
        """
        insns = ctypes.create_string_buffer(code, len(code))
        result = _load(spec, insns, None)
        if result >= 0:
            return cls(result, spec)
        if -result in (errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE):  # of which the verifier knows nothing
            raise BpfError(f"load program {spec.name}", -result)
        said = ctypes.create_string_buffer(_LOG_SIZE)
        again = _load(spec, insns, said)
        if again >= 0:
            return cls(again, spec)
        error = BpfError(f"load program {spec.name}", -result, said.value.decode(errors="replace"))
        log.error("the verifier on %s:\n%s", spec.name, "\n".join(error.log.splitlines()[-_LOG_LINES:]))
        raise error

    @classmethod
    def open(cls, number: int, spec: ProgSpec) -> Program:
        """Open one that is loaded, by the kernel's number for it.

        Raises:
            BpfError: there is none.
        """
        request = bpf.attr(_GET_BY_ID.pack(number))
        return cls(bpf.call_or_fail(Command.PROG_GET_FD_BY_ID, request, f"open program {number}"), spec)

    @property
    def id(self) -> int:
        """The kernel's number for it."""
        return int(_PROG_INFO.unpack(bpf.info(self.fd, _PROG_INFO.size, f"program {self.spec.name}"))[1])

    def test_run(self, data: bytes, ctx: bytes = b"", repeat: int = 1) -> TestRun:
        """Run it on a frame, without sending anything (but bpf_clone_redirect really sends).

        Args:
            data: the frame, at least 14 bytes.
            ctx: a struct __sk_buff or xdp_md; b"" for zeroes.
            repeat: how often; the frame is not put back in between.

        Raises:
            BpfError: the kernel refused the frame or the context.
        """
        data_in, data_out = bytearray(data), bytearray(len(data) + _DATA_ROOM)
        ctx_in, ctx_out = bytearray(ctx), bytearray(len(ctx))
        request = bpf.attr(
            _TEST_RUN.pack(
                self.fd,
                0,
                len(data_in),
                len(data_out),
                bpf.address(data_in),
                bpf.address(data_out),
                repeat,
                0,
                len(ctx_in),
                len(ctx_out),
                bpf.address(ctx_in),
                bpf.address(ctx_out),
                0,
                0,
                0,
            )
        )
        bpf.call_or_fail(Command.PROG_TEST_RUN, request, f"run program {self.spec.name}")
        _, verdict, _, size, _, _, _, duration, _, ctx_size, *_ = _TEST_RUN.unpack_from(request)
        return TestRun(
            verdict=verdict, data=bytes(data_out[:size]), ctx=bytes(ctx_out[:ctx_size]), duration_ns=duration
        )

    def run_live(self, data: bytes, ifindex: int, repeat: int) -> None:
        """Run an XDP program on many copies of a frame, as if the device's driver had received them.

        What it passes goes on into the stack, what it redirects is sent. The device is one of the caller's namespace.

        Raises:
            BpfError: the kernel refused.
        """
        data_in = bytearray(data)
        ctx_in = bytearray(_XDP_MD.pack(0, len(data), 0, ifindex, 0, 0))
        into, context = bpf.address(data_in), bpf.address(ctx_in)
        request = _TEST_RUN.pack(
            self.fd, 0, len(data), 0, into, 0, repeat, 0, len(ctx_in), 0, context, 0, _LIVE_FRAMES, 0, 0
        )
        bpf.call_or_fail(Command.PROG_TEST_RUN, bpf.attr(request), f"run program {self.spec.name}")


def _load(spec: ProgSpec, insns: ctypes.Array[ctypes.c_char], said: ctypes.Array[ctypes.c_char] | None) -> int:
    license_text = ctypes.create_string_buffer(LICENSE)
    request = _LOAD.pack(
        spec.type,
        len(insns) // _INSN_SIZE,
        ctypes.addressof(insns),
        ctypes.addressof(license_text),
        0 if said is None else 1,
        0 if said is None else len(said),
        0 if said is None else ctypes.addressof(said),
        0,
        0,
        bpf.object_name(spec.name),
        0,
        spec.attach_type,
    )
    for _ in range(_ATTEMPTS - 1):
        result = bpf.call(Command.PROG_LOAD, bpf.attr(request))
        if result != -errno.EAGAIN:  # a signal interrupted the verifier
            return result
    return bpf.call(Command.PROG_LOAD, bpf.attr(request))

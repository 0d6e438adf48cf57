"""What runs at a device's tcx hooks, as the kernel tells it (BPF_PROG_QUERY), in the order of running."""

from __future__ import annotations

import ctypes
import struct

from vxagent.datapath import bpf
from vxagent.datapath.bpf_prog import AttachType

_PROG_QUERY = 16
_MOST = 64  # programs at one hook, BPF_MPROG_MAX
_QUERY = struct.Struct("=4IQI")  # target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count


def program_ids(ifindex: int, hook: AttachType = AttachType.TCX_INGRESS) -> list[int]:
    """The numbers of the programs; none where there is no such device."""
    numbers = (ctypes.c_uint32 * _MOST)()
    request = bpf.attr(_QUERY.pack(ifindex, hook, 0, 0, ctypes.addressof(numbers), _MOST))
    if bpf.call(_PROG_QUERY, request) < 0:  # type: ignore[arg-type]  # nothing but a test asks this
        return []
    count = _QUERY.unpack_from(request)[-1]
    return list(numbers[:count])

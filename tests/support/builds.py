"""Other builds of vxagent: the tree's agent and C sources, copied and changed.

`python -m support.builds DIR` makes one with other tables there, and prints what to put into PYTHONPATH.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

TREE = Path(__file__).parents[2]

Change = tuple[str, str, str]
"""File below the tree, a text in it, and what stands there instead."""

OTHER_TABLES: tuple[Change, ...] = (
    ("bpf/abi.h", "#define VX_LAYOUT 1", "#define VX_LAYOUT 2"),
    ("bpf/abi.h", "refresh; kept to about a second */", "refresh; kept to about a second */\n\t__u64 extra;"),
    ("bpf/abi.h", "__u32 max_macs;\t    /* learned at most;", "__u32 max_macs;\n\t__u64 colour; /*"),
    ("bpf/abi.h", "struct vx_traffic {", "struct vx_traffic {\n\t__u64 mirrored;"),
    ("bpf/abi.h", "struct vx_learning {", "struct vx_learning {\n\t__u64 quiet;"),
    ("bpf/abi.h", "struct vx_drop_count {", "struct vx_drop_count {\n\t__u64 longest;"),
    ("agent/vxagent/datapath/abi.py", "LAYOUT = 1", "LAYOUT = 2"),
    ("agent/vxagent/datapath/abi.py", 'flags="B", seen_ns="Q")', 'flags="B", seen_ns="Q", extra="Q")'),
    ("agent/vxagent/datapath/abi.py", '    max_macs="I",\n', '    max_macs="I",\n    colour="Q",\n'),
    ("agent/vxagent/datapath/abi.py", 'Layout("vx_traffic", ', 'Layout("vx_traffic", mirrored="Q", '),
    ("agent/vxagent/datapath/abi.py", 'Layout("vx_learning", ', 'Layout("vx_learning", quiet="Q", '),
    ("agent/vxagent/datapath/abi.py", 'Layout("vx_drop_count", ', 'Layout("vx_drop_count", longest="Q", '),
    (
        "agent/vxagent/datapath/fdb_map.py",
        "_ENTRY = abi.FDB_ENTRY.struct",
        "class _ENTRY:\n"
        "    unpack = staticmethod(lambda data: abi.FDB_ENTRY.struct.unpack(data)[:6])\n"
        "    iter_unpack = staticmethod(lambda data: (row[:6] for row in abi.FDB_ENTRY.struct.iter_unpack(data)))",
    ),
    ("agent/vxagent/datapath/fdb_map.py", "values[0] for batch", "values[1] for batch"),
    ("agent/vxagent/datapath/counters.py", "sums = _sum(abi.TRAFFIC, value)", "sums = _sum(abi.TRAFFIC, value)[1:]"),
    ("agent/vxagent/datapath/counters.py", "packets, size = _sum(", "_, packets, size = _sum("),
    (
        "agent/vxagent/datapath/source.py",
        "main=main, directory=find_directory(), flags=flags",
        "main=main, directory=find_directory(), flags=(*flags, '-DVX_OTHER=1')",
    ),
)
"""Other structs of what is learned, counted and desired, under another layout version."""

FAILS_THE_VERIFIER: tuple[Change, ...] = (
    (
        "bpf/vxagent.c",
        "int vx_xdp(struct xdp_md *ctx)\n{\n",
        "int vx_xdp(struct xdp_md *ctx)\n{\n\tif (*(volatile __u8 *)(long)ctx->data == 7)\n\t\treturn XDP_DROP;\n",
    ),
)

DROPS_ALL: tuple[Change, ...] = (
    (
        "bpf/vxagent.c",
        "int vx_tc(struct __sk_buff *skb)\n{\n",
        "int vx_tc(struct __sk_buff *skb)\n{\n\tif (skb->len)\n\t\treturn TC_ACT_SHOT;\n",
    ),
)


def make_build(directory: Path, changes: Sequence[Change]) -> Path:
    """Copy the tree's sources and change them; the path to put into PYTHONPATH."""
    shutil.copytree(TREE / "bpf", directory / "bpf")
    shutil.copytree(
        TREE / "agent" / "vxagent",
        directory / "agent" / "vxagent",
        ignore=shutil.ignore_patterns("__pycache__", "bytecode"),
    )
    for name, text, instead in changes:
        file = directory / name
        content = file.read_text()
        assert content.count(text) == 1, f"{name} has {content.count(text)} times {text!r}"
        file.write_text(content.replace(text, instead))
    return directory / "agent"


if __name__ == "__main__":
    builds = (
        ("--other-build", OTHER_TABLES),
        ("--broken-build", FAILS_THE_VERIFIER),
        ("--broken-build", (*OTHER_TABLES, *DROPS_ALL)),
    )
    for number, (option, changes) in enumerate(builds):
        sys.stdout.write(f"{option} {make_build(Path(sys.argv[1], str(number)), changes)}\n")

"""A picture of a document: vxagent ÷ bridge with error bars. matplotlib is an extra, `vxagent[bench]`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from vxagent.bench.cases import Unit
from vxagent.bench.document import Document
from vxagent.errors import HostError, Invalid

SUFFIXES = (".svg", ".png")
_ROW_INCHES, _WIDTH_INCHES, _HEAD_INCHES = 0.38, 8.0, 1.3


def check(file: Path) -> None:
    """Refuse early what `draw` would refuse late.

    Raises:
        Invalid: neither .svg nor .png.
        HostError: matplotlib is not installed.
    """
    if file.suffix not in SUFFIXES:
        raise Invalid("plot", str(file), f"must end in {' or '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise HostError("a picture takes matplotlib, which is not installed", "pip install 'vxagent[bench]'")


def draw(document: Document, file: Path) -> None:
    """Write the picture. Cases that are not valid, or have no bridge to compare with, are left out.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra, and slow

    shown = [one for one in document["results"] if one["valid"] and one["bridge"] is not None]
    names = [f"{one['case']} *" if one["unit"] == Unit.MICROSECONDS else one["case"] for one in shown]
    ratios = [one["ratio"] for one in shown]
    below = [one["ratio"] - one["ratio_min"] for one in shown]
    above = [one["ratio_max"] - one["ratio"] for one in shown]

    figure = Figure(figsize=(_WIDTH_INCHES, _HEAD_INCHES + _ROW_INCHES * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, ratios, xerr=[below, above], color="#4477aa", ecolor="#222222", capsize=3)
    axes.axvline(1.0, color="#cc3311", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("vxagent ÷ Linux bridge: median of rounds, least to most   (* time: smaller is better)")
    axes.set_title(f"{document['machine']}, Linux {document['kernel']}", fontsize="medium")
    figure.savefig(file)

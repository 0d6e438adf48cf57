"""The agent does what it is asked to, beside the streams. Each function does it once."""

from __future__ import annotations

from pathlib import Path

from vxagent.bench.faults.efforts import Effort
from vxagent.bench.faults.lab import AGEING_S, STREAMED, Broken, FaultLab, config
from vxagent.lab.waiting import wait_until

REAL = 10  # of the ports of an `apply`, those that have a device
SHORT_AGEING_S = 3
FLUSHED = 100  # entries that are flushed


def reload(lab: FaultLab, _effort: Effort) -> None:
    """`reload`: new programs everywhere."""
    lab.agent.cli("reload")


def apply_many(lab: FaultLab, effort: Effort) -> None:
    """`apply` of ports of another tenant, some with devices, and of a document without them."""
    real = [f"r{n}" for n in range(REAL)]
    for name in real:
        if name not in lab.switch.devices():
            lab.veth(name)
    names = real + [f"p{n}" for n in range(effort.ports - REAL)]
    segment = '[[segment]]\nname = "white"\ntenant = "white"\n'
    ports = "".join(f'[[port]]\nifname = "{name}"\nsegment = "white"\n' for name in names)
    _apply(lab, segment + ports)
    states = [port["state"] for port in lab.agent.json("port", "list") if port["id"] in names]
    if len(states) != len(names) or states.count("up") != REAL:
        raise Broken(f"of {len(names)} ports {len(states)} are there and {states.count('up')} up, not {REAL}")
    _apply(lab, "")


def neighbours(lab: FaultLab, _effort: Effort) -> None:
    """`port attach` and `detach` of a neighbour, in each stream's segment."""
    for segment in STREAMED:
        lab.agent.cli("port", "attach", "spare", "--segment", segment)
        lab.agent.cli("port", "detach", "spare")


def flush(lab: FaultLab, _effort: Effort) -> None:
    """`fdb flush` of another segment, which has entries."""
    lab.announce(FLUSHED)
    before = _entries(lab)
    if before < FLUSHED:
        raise Broken(f"the other segment has {before} entries to be flushed, not {FLUSHED}")
    lab.agent.cli("fdb", "flush", "--segment", "grey")
    if _entries(lab) >= before:
        raise Broken("`fdb flush` has removed nothing")


def ageing(lab: FaultLab, effort: Effort) -> None:
    """Many entries of another segment, which grow too old all at once."""
    lab.announce(effort.entries)
    if _entries(lab) < effort.entries:
        raise Broken(f"the switch has learned {_entries(lab)} of {effort.entries} MACs")
    try:
        _set_ageing(lab, SHORT_AGEING_S)
        wait_until(lambda: _entries(lab) < FLUSHED, within=60, what="the entries age")
    finally:
        _set_ageing(lab, AGEING_S)


def _entries(lab: FaultLab) -> int:
    return int(lab.agent.json("status")["fdb_entries"])


def _set_ageing(lab: FaultLab, seconds: int) -> None:
    lab.agent.config_file.write_text(config(seconds))
    lab.agent.cli("reload")


def _apply(lab: FaultLab, text: str) -> None:
    file: Path = lab.agent.run_dir / "many.toml"
    file.write_text(text)
    lab.agent.cli("apply", str(file))

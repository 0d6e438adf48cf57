"""How exactly rates are kept, on this machine: `make rates`, four minutes.

Prints a table; it is no test, because a busy machine is not a broken one. Everything happens in namespaces of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale.measure import machine
from support.lan import Lan, running_lan
from support.rates import UdpSink, blasting
from vxagent.lab.ping import ping
from vxagent.lab.signals import Stopped
from vxagent.lab.traffic import iperf3
from vxagent.lab.vm import VethVm
from vxagent.lab.waiting import wait_until

UDP_S, TCP_S = 5.0, 30.0
RATES = {"1Mbit": 10**6, "100Mbit": 10**8, "1Gbit": 10**9}
UDP_WITHIN, TCP_WITHIN = 0.05, 0.10


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One line of the table: what arrived to what was set, and how far off it may be."""

    what: str
    value: float
    within: float

    def __str__(self) -> str:
        good = "ok" if abs(self.value - 1) <= self.within else "MISSED"
        return f"{self.what:<48} {self.value:6.3f}  ± {self.within:g}  {good}"


def ratios(lan: Lan) -> Iterator[Ratio]:
    """Measure one after the other."""
    for rate, bits in RATES.items():
        for way in ("in", "out"):
            yield Ratio(what=f"UDP, --rate-{way} {rate}", value=udp(lan, way, rate) / bits, within=UDP_WITHIN)
    for rate, bits in RATES.items():
        for way in ("in", "out"):
            yield Ratio(what=f"TCP, --rate-{way} {rate}", value=tcp(lan, way, rate) / bits, within=TCP_WITHIN)


def udp(lan: Lan, way: str, rate: str) -> float:
    """bit/s of whole frames at the receiver, from the moment on when the bucket is empty."""
    a, b = pair(lan, way, rate)
    size = 200 if rate == "1Mbit" else 1400
    segments = 40 if rate == "1Gbit" else 1  # GSO: one process cannot send that many single datagrams
    with UdpSink(b.namespace, b.address, size=size) as sink, blasting(a.namespace, sink, segments=segments):
        wait_until(lambda: "rate_limited" in lan.drops(a.port), what="the bucket is empty", within=30)
        return sink.measure(seconds=UDP_S).bits


def tcp(lan: Lan, way: str, rate: str) -> float:
    """bit/s of payload at iperf3's receiver, from the first byte on; 95.6 % of a full frame are payload."""
    a, b = pair(lan, way, rate)
    return iperf3(a.namespace, b.namespace, b.address, seconds=TCP_S)


def pair(lan: Lan, way: str, rate: str) -> tuple[VethVm, VethVm]:
    """Two VMs in a segment of their own, with that rate between them."""
    a, b = lan.veths(lan.new_segment(), 2)
    lan.agent.cli("port", "set", a.port if way == "in" else b.port, f"--rate-{way}", rate)
    ping(a.namespace, b.address, count=1)
    return a, b


def main() -> None:
    """Print the table."""
    print(machine())
    with running_lan() as lan:
        for ratio in ratios(lan):
            print(ratio, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Stopped as exc:
        sys.exit(128 + exc.number)

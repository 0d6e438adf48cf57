"""A hundred migrations under streams: what becomes of the frames, and how long the steps take (`make migrations`)."""

from __future__ import annotations

import sys
import time
from collections import Counter
from statistics import median

from support.clustered import running_cluster
from support.journeys import RATE, Journey, ToEverybody, percentile
from vxagent.bench.faults.figures import Figures

PAUSE_S = 0.1
APPEARANCES = 10

# What is to be reached, at most
AMISS = 1  # of what is for everybody, of each host in each migration
NOTICED_MS = 10.0
STEPS_MS: dict[str, tuple[float, float]] = {"activate": (10.0, 50.0)}  # p50 and p99


def main(times: int) -> int:
    """Print it; 1 if a frame was lost, came twice or overtook one; of those for everybody, more than one each time.
    What takes longer than it is to is MISSED, and no more: a busy machine is not a broken one."""
    with running_cluster() as fleet:
        journey = Journey(fleet)
        print(f"{times} migrations there and back, {RATE:,} frames a second in each stream")
        with journey.streaming("migrations") as found, journey.broadcasting() as everybody:
            for _ in range(times):
                time.sleep(PAUSE_S)
                journey.move()
        (figures,) = found
        show_streams(figures)
        good = all([figures.good, *(show_broadcasts(name, of) for name, of in everybody.items())])
        missing = Counter(host for hosts in journey.missing for host in hosts)
        print(f"  switchovers that a host had not heard of in time: {dict(missing) or 'none'}")
        for step, taken in vars(journey.times).items():
            show_step(step, taken)
        return 0 if appear(journey) and good else 1


def show_streams(figures: Figures) -> None:
    """To one receiver each."""
    for name, (sent, lost, duplicated, reordered) in (figures.streams or {}).items():
        good = judged(lost + duplicated + reordered, 0)
        print(f"  {name:<18} {sent:>9,} sent, {lost} lost, {duplicated} duplicated, {reordered} out of order  {good}")


def show_broadcasts(name: str, of: ToEverybody) -> bool:
    """Whether each migration was as it is to be."""
    heard, worst = of.heard, max(of.each)
    what = f"{heard.lost} lost, {heard.duplicated} duplicated, {heard.reordered} out of order"
    good = worst <= AMISS and not heard.reordered
    verdict = "ok" if good else "MISSED"
    print(f"  {name:<18} {heard.sent:>9,} sent, {what}, at most {worst} ≤ {AMISS} in a migration  {verdict}")
    return good


def show_step(step: str, taken: list[float]) -> None:
    """How long it took."""
    cells = [f"p{share * 100:.0f} {percentile(taken, share):6.1f} ms" for share in (0.5, 0.99)]
    if step in STEPS_MS:
        for at, (share, limit) in enumerate(zip((0.5, 0.99), STEPS_MS[step], strict=True)):
            cells[at] += f" ≤ {limit:g} ms {judged(percentile(taken, share), limit)}"
    print(f"  {step:<10} {'   '.join(cells)}")


def appear(journey: Journey) -> bool:
    """Again and again; whether all frames but those that are late arrived, once and in order."""
    print(f"{APPEARANCES} times a VM appears where it is awaited, by RARP alone")
    late: list[int] = []
    good = True
    for _ in range(APPEARANCES):
        with journey.streaming("appears", own=False) as found:
            time.sleep(PAUSE_S)
            before, after = journey.appear()
            time.sleep(PAUSE_S)
        (figures,) = found
        late.append(after)
        good = good and figures.lost == before + after and not figures.duplicated and not figures.reordered
    took = [count * 1000 / RATE / 2 for count in late]
    told = ", ".join(f"{ms:.1f}" for ms in took)
    print(f"  milliseconds in which frames of both streams came where it was no more: {told}")
    print(f"  their median {median(took):.1f} ms ≤ {NOTICED_MS:g} ms {judged(median(took), NOTICED_MS)}")
    return good


def judged(value: float, limit: float) -> str:
    """Beside a value that is to be at most so much."""
    return "ok" if value <= limit else "MISSED"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

"""A hundred migrations under streams: what becomes of the frames, and how long the steps take (`make migrations`)."""

from __future__ import annotations

import sys
import time
from collections import Counter

from support.clustered import running_cluster
from support.journeys import RATE, Journey, percentile

PAUSE_S = 0.1
APPEARANCES = 10


def main(times: int) -> int:
    """Print it; 1 if a frame was lost, came twice or overtook one; of those for everybody, more than one each time."""
    with running_cluster() as fleet:
        journey = Journey(fleet)
        print(f"{times} migrations there and back, {RATE:,} frames a second in each stream")
        with journey.streaming("migrations") as found, journey.broadcasting() as everybody:
            for _ in range(times):
                time.sleep(PAUSE_S)
                journey.move()
        (figures,) = found
        for name, (sent, lost, duplicated, reordered) in (figures.streams or {}).items():
            print(f"  {name:<18} {sent:>9,} sent, {lost} lost, {duplicated} duplicated, {reordered} out of order")
        for name, heard in everybody.items():
            what = f"{heard.lost} lost, {heard.duplicated} duplicated, {heard.reordered} out of order"
            print(f"  {name:<18} {heard.sent:>9,} sent, {what}")
        missing = Counter(host for hosts in journey.missing for host in hosts)
        print(f"  switchovers that a host had not heard of in time: {dict(missing) or 'none'}")
        for step, taken in vars(journey.times).items():
            print(f"  {step:<10} p50 {percentile(taken, 0.5):6.1f} ms   p99 {percentile(taken, 0.99):6.1f} ms")
        good = figures.good and all(h.lost + h.duplicated <= times and not h.reordered for h in everybody.values())
        print(f"{APPEARANCES} times a VM appears where it is awaited, by RARP alone")
        late = []
        for _ in range(APPEARANCES):
            with journey.streaming("appears", own=False) as found:
                time.sleep(PAUSE_S)
                before, after = journey.appear()
                time.sleep(PAUSE_S)
            (figures,) = found
            late.append(after)
            good = good and figures.lost == before + after and not figures.duplicated and not figures.reordered
        told = ", ".join(f"{count * 1000 / RATE / 2:.1f}" for count in late)
        print(f"  milliseconds in which frames of both streams came where it was no more: {told}")
    print("No more is lost, duplicated or out of order than may be" if good else "Not as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

"""How long things took, as counts in buckets that are 2 % wide: what many processes have measured adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import log

_WIDE = log(1.02)


class Spread:
    """Times, in µs."""

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self._counts = Counter({int(bucket): count for bucket, count in (counts or {}).items()})

    def add(self, us: float) -> None:
        """Count one more."""
        self._counts[int(log(max(us, 1.0)) / _WIDE)] += 1

    def take(self, other: Spread) -> None:
        """Count all of another's."""
        self._counts.update(other._counts)

    def __len__(self) -> int:
        return self._counts.total()

    def ms(self, share: float) -> float:
        """In how many ms this share was done; 0 if there are none."""
        wanted = share * len(self)
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return float(1.02 ** (bucket + 0.5) / 1e3)
        return 0.0

    def counts(self) -> dict[str, int]:
        """For JSON; `Spread(counts)` is the same again."""
        return {str(bucket): count for bucket, count in self._counts.items()}

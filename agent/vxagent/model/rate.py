"""Rates as people write them: ``100Mbit``, ``20kpps``, or one of each, ``1Gbit,100kpps``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from vxagent.errors import Invalid
from vxagent.model.ids import check_range

BITS_MIN, BITS_MAX = 1_000, 10**12  # bit/s; below, one frame of 1,500 bytes takes more than 12 s
PACKETS_MIN, PACKETS_MAX = 1, 10**9  # frames a second

# Decimal, as tc(8) has them: a kbit is 1,000 bit/s.
_BITS = {"Tbit": 10**12, "Gbit": 10**9, "Mbit": 10**6, "kbit": 1_000, "bit": 1}
_PACKETS = {"Mpps": 10**6, "kpps": 1_000, "pps": 1}
_UNITS = {unit.lower(): factor for unit, factor in (_BITS | _PACKETS).items()} | {"": 1}

_TERM = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?P<unit>[A-Za-z]*)")
_FORM = "must be bit/s such as 100Mbit, packets/s such as 20kpps, or both such as 1Gbit,100kpps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a port may bring or get in a second; 0: as much as it likes of these.

    Attributes:
        bits: bit/s as on the wire, from the Ethernet header to the end of the payload.
        packets: frames a second, each segment of a GSO frame one.

    Raises:
        Invalid: out of range.
    """

    bits: int = 0
    packets: int = 0

    def __post_init__(self) -> None:
        if self.bits:
            check_range("rate in bit/s", self.bits, BITS_MIN, BITS_MAX)
        if self.packets:
            check_range("rate in packets/s", self.packets, PACKETS_MIN, PACKETS_MAX)

    @classmethod
    def parse(cls, field: str, text: str) -> Rate:
        """The rate that a text means; a bare number is bit/s.

        Raises:
            Invalid: it means none, or one out of range; names `field`.
        """
        found: dict[str, int] = {}
        for term in text.split(","):
            match = _TERM.fullmatch(term.strip())
            if match is None or match["unit"].lower() not in _UNITS:
                raise Invalid(field, text, _FORM)
            unit = match["unit"].lower()
            kind = "packets" if unit.endswith("pps") else "bits"
            if kind in found:
                raise Invalid(field, text, f"gives {kind}/s twice")
            found[kind] = _whole(field, text, Fraction(match["number"]) * _UNITS[unit], kind)
        return cls(**found)

    def __str__(self) -> str:
        """In the largest units that need no fraction; `parse` gives the same rate back."""
        terms = ((self.bits, _BITS), (self.packets, _PACKETS))
        return ",".join(_in_units(amount, units) for amount, units in terms if amount)


NO_RATE = Rate()


def _whole(field: str, text: str, amount: Fraction, kind: str) -> int:
    low, high, units = (BITS_MIN, BITS_MAX, _BITS) if kind == "bits" else (PACKETS_MIN, PACKETS_MAX, _PACKETS)
    if amount.denominator != 1 or not low <= amount <= high:
        raise Invalid(field, text, f"must be whole and {_in_units(low, units)} to {_in_units(high, units)}")
    return int(amount)


def _in_units(amount: int, units: dict[str, int]) -> str:
    unit, factor = next((unit, factor) for unit, factor in units.items() if amount % factor == 0)
    return f"{amount // factor}{unit}"

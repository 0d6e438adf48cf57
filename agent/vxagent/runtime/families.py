"""Families of metrics, from samples: (values of the labels, value)."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

OPTIONAL = ("vtep",)
"""Labels that stand only where they say something, for those who count on the others alone."""

Samples = Iterable[tuple[tuple[str, ...], int]]


def counter(name: str, does: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A counter; `_total` is appended to the name in the exposition."""
    family = CounterMetricFamily(name, does, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
        _leave_out(family.samples[-1].labels)
    return family


def gauge(name: str, does: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A gauge."""
    family = GaugeMetricFamily(name, does, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
        _leave_out(family.samples[-1].labels)
    return family


def _leave_out(labels: dict[str, str]) -> None:
    for name in OPTIONAL:
        if not labels.get(name):
            labels.pop(name, None)

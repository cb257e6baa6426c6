"""Percentiles of measured times."""

from collections.abc import Sequence

__all__ = ["percentile", "summary"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(samples)
    return ordered[max(1, -(-int(percent * len(ordered)) // 100)) - 1]


def summary(samples: Sequence[float]) -> dict[str, float]:
    """`best`, `p50`, `p90`, `p99` and `count` of times in milliseconds."""
    named = {f"p{percent}": percentile(samples, percent) for percent in (50, 90, 99)}
    return {"best": min(samples), **named, "count": len(samples)}

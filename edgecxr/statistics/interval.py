"""An estimate and how sure we are of it."""

from dataclasses import dataclass

from scipy.special import ndtri

__all__ = ["Interval", "normal_quantile"]


@dataclass(frozen=True)
class Interval:
    """A point estimate with a two-sided confidence interval [low, high] at `level`."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def to_json(self) -> dict[str, float]:
        """``{"value", "low", "high", "level"}``."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def normal_quantile(level: float) -> float:
    """z with P(|Z| <= z) = level for a standard normal Z: 1.96 for 0.95."""
    return float(ndtri(0.5 + level / 2))

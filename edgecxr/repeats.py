"""Names of which each may stand once."""

from collections import Counter
from collections.abc import Iterable

__all__ = ["repeated"]


def repeated(names: Iterable[str]) -> list[str]:
    """Those that stand more than once, each of them once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)

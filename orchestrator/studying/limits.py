"""How much a rater, and an address, may ask of the raters' page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_KEYS = 10_000  # addresses, or raters, remembered


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one rater, one address, and all together may do; rates in requests a second.

    A bucket of `burst` requests is filled at the rate. An IPv6 address counts as its /64 network.
    """

    body_bytes: int = 1024
    body_s: float = 10.0
    address_rate: float = 50.0  # a room of raters behind one address
    address_burst: int = 300
    rater_rate: float = 5.0
    rater_burst: int = 20
    join_rate: float = 0.1
    join_burst: int = 40
    raters: int = 5000


class Buckets:
    """Token buckets by key, of which the longest unused are forgotten. For one thread."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """0, or the seconds to wait until the key may be used again."""
        now = self._clock()
        left, at = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[key] = (left - 1 if wait_s == 0 else left, now)
        if len(self._left) > _MOST_KEYS:
            self._left.popitem(last=False)
        return wait_s

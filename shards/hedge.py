"""A second request when the first is slow: cuts the tail that a few slow servers make.

After Dean and Barroso, "The Tail at Scale" (2013): a request that has taken longer than the 99th
percentile of its like is sent again, and whichever answers first is used. A budget keeps the extra
load small when everything is slow.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

QUANTILE = 0.99
FIRST_DELAY_S = 2.0
"""Before enough is known; what AWS advises for requests below 512 KB."""
LEAST_DELAY_S = 0.02
_ENOUGH = 50  # observations before the quantile is believed
_REMEMBERED = 1000
_BUDGET = 0.05  # hedges per request in the long run
_BURST = 10.0
_THREADS = 96


class Hedge:
    """Runs requests, doubling the slow ones. Safe to use from many threads.

    sent, hedged, won: requests so far, those sent twice, those whose second was first.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._lock = threading.Lock()
        self._tokens = _BURST
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="shards-get")
        self.sent = self.hedged = self.won = 0

    def run(self, size: int, first: Callable[[], bytes], second: Callable[[], bytes]) -> bytes:
        """What `first` returns, or `second` when it is called and is faster.

        size: bytes asked for; requests are compared with those of similar size. Raises the last
        error when all that were sent have failed.
        """
        begin = time.monotonic()
        main = self._pool.submit(first)
        done, waiting = wait([main], timeout=self.delay(size))
        backup: Future[bytes] | None = None
        if not done and self._may_hedge():
            backup = self._pool.submit(second)
            waiting = {main, backup}
        error: BaseException | None = None
        while done or waiting:
            for future in done:
                error = future.exception()
                if error is None:
                    self._note(size, time.monotonic() - begin, won=future is backup)
                    return future.result()
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        assert error is not None
        raise error

    def delay(self, size: int) -> float:
        """Seconds after which a request of `size` bytes counts as slow."""
        with self._lock:
            seconds = sorted(self._seconds[_likeness(size)])
        if len(seconds) < _ENOUGH:
            return FIRST_DELAY_S
        return max(seconds[int(QUANTILE * (len(seconds) - 1))], LEAST_DELAY_S)

    def _may_hedge(self) -> bool:
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            self.hedged += 1
            return True

    def _note(self, size: int, seconds: float, *, won: bool) -> None:
        with self._lock:
            self._seconds[_likeness(size)].append(seconds)
            self._tokens = min(self._tokens + _BUDGET, _BURST)
            self.sent += 1
            self.won += won


def _likeness(size: int) -> int:
    """Sizes that take about as long: below 128 KiB, then by powers of two."""
    return (size >> 17).bit_length()

"""Calls that a client sends again: which of them had an answer that made no job.

A client counts its attempts (`x-stainless-retry-count`), and does not say why it tries again: the answer was
lost on its way, and there is a job, or it was an error, and there is none. Errors are remembered here, each
for one attempt, so that two calls that ask for the same do not share a job because one of them was refused.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 120.0
"""Seconds in which a client may send again what was accepted or refused: it waits at most one minute."""
MOST = 1000


class Refusals:
    """What was lately answered with an error after which a client tries again.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: deque[tuple[float, str]] = deque(maxlen=MOST)

    def tell(self, digest: str) -> None:
        """An attempt to ask for this was answered with an error."""
        self._told.append((self._clock(), digest))

    def take(self, digest: str) -> bool:
        """Whether an attempt is the one after such an answer; each answer has one."""
        since = self._clock() - WINDOW
        while self._told and self._told[0][0] < since:
            self._told.popleft()
        found = next((entry for entry in self._told if entry[1] == digest), None)
        if found is None:
            return False
        self._told.remove(found)
        return True


def is_tried_again(status: int) -> bool:
    """Whether clients send a call again by themselves after an answer of this status."""
    return status in (408, 409, 429) or status >= 500

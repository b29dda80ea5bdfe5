"""Imports of large libraries without the garbage collector, which would look for garbage where there is none.

What a module defines stays until the process ends. torch alone makes hundreds of thousands of objects, and
while they come the collector walks through all of them again and again: a fifth of the time of its import.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """No collection inside; what was made inside is old afterwards, as if collections had gone through it.

    Objects stay under the collector's eyes: its next full collection sees them. Where it was off, or where a
    program has frozen objects of its own, only what that program chose happens.
    """
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            if not gc.get_freeze_count():
                gc.freeze()  # all generations become one,
                gc.unfreeze()  # the oldest, without a walk through it
            gc.enable()

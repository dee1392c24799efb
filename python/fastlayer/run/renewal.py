"""One lock: no call reads the weights of some layers before, and of others after a renewal.

Whoever replaces weights holds it, and so does a network while it reads those of all its layers, which
it does once after each renewal.
"""

from __future__ import annotations

import os
from threading import RLock

_lock = RLock()  # a signal handler may call a network in the midst


def lock() -> RLock:
    """Return the lock of this process."""
    return _lock


def _renew() -> None:
    # A process forked during a renewal has nobody left to release it.
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

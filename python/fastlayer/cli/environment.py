"""Mistakes in environment variables, which come to light when the package is imported."""

from __future__ import annotations

import sys


def end_command(error: Exception) -> None:
    """End the process with one line where `python -m fastlayer` is what imports the package.

    For any other program this returns, and the exception goes on. `__main__` can't do this: Python
    imports the package before it, and prints a traceback of what that raises.
    """
    # Python says "-m" there until it has found the module to run, in a package that it imports.
    searching = sys.argv[:1] == ["-m"]
    if searching and {"fastlayer", "-mfastlayer"} & set(sys.orig_argv):
        raise SystemExit(f"python -m fastlayer: {error}") from None

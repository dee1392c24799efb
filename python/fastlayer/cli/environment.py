"""What the program is called, and mistakes in environment variables, which an import brings to light."""

from __future__ import annotations

import os
import sys

_SCRIPTS = ("fastlayer", "fastlayer-nn")  # of pyproject.toml


def script() -> str | None:
    """Return the name of the command that runs, None where it is no command of ours."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    return name if name in _SCRIPTS else None


def end_command(error: Exception) -> None:
    """End the process with one line where a command of ours is what imports the package.

    For any other program this returns, and the exception goes on. `__main__` can't do this: Python
    imports the package before it, and prints a traceback of what that raises.
    """
    # Python says "-m" there until it has found the module to run, in a package that it imports.
    searching = sys.argv[:1] == ["-m"] and {"fastlayer", "-mfastlayer"} & set(sys.orig_argv)
    name = script() or ("python -m fastlayer" if searching else None)
    if name:
        raise SystemExit(f"{name}: {error}") from None

"""`show_config`: what the package was built with, and what it uses."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from fastlayer import _core, threads


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print, or return, what the package was built with and what it uses, as `numpy.show_config`.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary.

    Returns
    -------
    dict or None
        Keys "version", "build", "isa" (with "built", "supported" and "active"), "caches",
        "threads" (with "count" and "source") and "python".

    Raises
    ------
    ValueError
        Another `mode`.

    Examples
    --------
    >>> import fastlayer as fl
    >>> sorted(fl.show_config(mode="dicts"))
    ['build', 'caches', 'isa', 'python', 'threads', 'version']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    import platform

    core = _core.config()
    found: dict[str, Any] = {
        "version": core["version"],
        "build": {"compiler": core["compiler"], "openmp": core["openmp"]},
        "isa": {name: core[f"isa_{name}"] for name in ("built", "supported", "active")},
        "caches": {level: f"{size // 1024} KiB" for level, size in core["caches"].items()},
        "threads": {"count": threads.get_num_threads(), "source": threads.source()},
        "python": {"version": platform.python_version(), "numpy": np.__version__},
    }
    if mode == "dicts":
        return found
    for key, value in found.items():
        if not isinstance(value, dict):
            print(f"{key}: {value}")
            continue
        print(f"{key}:")
        for name, item in value.items():
            text = ", ".join(item) if isinstance(item, list) else item
            print(f"  {name}: {text}")
    return None

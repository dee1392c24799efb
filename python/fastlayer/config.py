"""`show_config`: what the package was built with, and what it uses."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from fastlayer import _core, threads


@overload
def show_config(mode: Literal["stdout"] = ..., *, measure: bool = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"], *, measure: bool = ...) -> dict[str, Any]: ...
def show_config(mode: str = "stdout", *, measure: bool = False) -> dict[str, Any] | None:
    """Print, or return, what the package was built with and what it uses, as `numpy.show_config`.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary.
    measure : bool
        Also run a product with each supported instruction set, about 0.1 s in all: on some
        processors the clock falls while the widest vectors are used. Where another set than the
        active one is faster, ``FASTLAYER_ISA`` in the environment of a new process chooses it.

    Returns
    -------
    dict or None
        Keys "version", "build", "isa" (with "built", "supported" and "active", and where it was
        measured "gflops", of float32 and one thread, by name), "caches", "threads" (with "count"
        and "source") and "python".

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
    if measure:
        speeds = _core.isa_speeds()
        found["isa"]["gflops"] = {name: round(flops / 1e9, 1) for name, flops in speeds.items()}
    if mode == "dicts":
        return found
    for key, value in found.items():
        if not isinstance(value, dict):
            print(f"{key}: {value}")
            continue
        print(f"{key}:")
        for name, item in value.items():
            if isinstance(item, dict):
                item = [f"{speed} with FASTLAYER_ISA={isa}" for isa, speed in item.items()]
            text = ", ".join(item) if isinstance(item, list) else item
            print(f"  {name}: {text}")
    return None

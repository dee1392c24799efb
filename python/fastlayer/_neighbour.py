"""Warns where another distribution has put its files among ours; imported before anything else.

The `fastlayer` of PyPI is another project with the same top-level module; ours is `fastlayer-nn`.
pip installs both into one folder: each takes the place of files of the other, and takes them along
when it goes.
"""

from __future__ import annotations

import os
import warnings

REMEDY = "pip uninstall fastlayer; pip install --force-reinstall --no-deps fastlayer-nn"


def others(folder: str) -> list[str]:
    """What is installed in `folder` under the name fastlayer, such as "fastlayer 0.3"."""
    try:
        entries = os.listdir(folder)
    except OSError:  # in a zip archive
        return []
    parts = (f.rpartition(".")[0].split("-") for f in entries if f.endswith("-info"))
    names = [p for p in parts if p[0].lower() == "fastlayer" and p[1:] and p[1][0].isdigit()]
    return [f"fastlayer {name[1]}" for name in names]


def _warn() -> None:
    package = os.path.dirname(__file__)
    for other in others(os.path.dirname(package)):
        warnings.warn(
            f"two distributions share {package}: {other}, which is another project, and "
            "fastlayer-nn, which this is. Each takes the place of files of the other. "
            f"Remedy: {REMEDY}",
            RuntimeWarning,
            stacklevel=4,  # whoever imports fastlayer
        )


_warn()

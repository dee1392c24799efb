"""`python -m fastlayer info`: version, build, instruction sets and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer.config import show_config

if TYPE_CHECKING:
    from argparse import Namespace


def run(args: Namespace) -> int:
    """Print the configuration; the exit status."""
    show_config()
    return 0

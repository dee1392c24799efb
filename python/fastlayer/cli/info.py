"""`python -m fastlayer info`: version, build, instruction sets and threads."""

from __future__ import annotations

from fastlayer.config import show_config


def run(_: object) -> None:
    """Print the configuration."""
    show_config()

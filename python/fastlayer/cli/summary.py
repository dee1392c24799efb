"""`python -m fastlayer summary MODEL`: the layers of a model file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer.files.load import load

if TYPE_CHECKING:
    from argparse import Namespace


def run(args: Namespace) -> None:
    """Print the table of layers."""
    print(load(args.model).summary())

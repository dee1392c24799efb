"""The commands `fastlayer` and `fastlayer-nn`, which are what `python -m fastlayer` is.

The other project named fastlayer has a command of the same name, and pip lets the one that is installed
last have the file. So this asks whose files are here before it imports more of ours.
"""

from __future__ import annotations

import os
import sys

import fastlayer
from fastlayer._neighbour import REMEDY, others


def main() -> int:
    """Run one command and return its exit status."""
    package = os.path.dirname(__file__)
    found = others(os.path.dirname(package))
    if found or not hasattr(fastlayer, "show_config"):
        named = f"{found[0]}, which is another project," if found else "another project"
        print(
            f"{os.path.basename(sys.argv[0])}: {named} has taken files of fastlayer-nn in {package}, "
            f"or has taken them along. Remedy: {REMEDY}",
            file=sys.stderr,
        )
        return 1
    from fastlayer.cli.main import main as run

    return run()

"""The command line: `python -m fastlayer COMMAND`. What a command does lives in a module of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fastlayer import __version__, show_config


def _demo(args: argparse.Namespace) -> int:
    from fastlayer import demo

    return demo.run()


def _info(args: argparse.Namespace) -> int:
    show_config()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastlayer",
        description="The forward pass of dense neural networks on NumPy arrays.",
    )
    parser.add_argument("--version", action="version", version=f"fastlayer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser("demo", help="read handwritten digits and race NumPy at it")
    demo.set_defaults(command=_demo)
    info = commands.add_parser("info", help="show version, build, instruction sets and threads")
    info.set_defaults(command=_info)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 well, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough, as in `python -m fastlayer demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m fastlayer COMMAND`. What a command does lives in `_cli` and `demo`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from fastlayer import __version__

_PROGRAM = "python -m fastlayer"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive integer"  # argparse puts it into its message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="The forward pass of dense neural networks on NumPy arrays."
    )
    parser.add_argument("--version", action="version", version=f"fastlayer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, module: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(module=module, name=name)
        return command

    model = "model file: .npz, .safetensors, .onnx, .keras or .h5"
    add("demo", "cli.demo", "read handwritten digits and race NumPy at it")
    add("info", "cli.info", "show version, build, instruction sets and threads")
    summary = add("summary", "cli.summary", "show the layers of a model")
    summary.add_argument("model", metavar="MODEL", help=model)
    predict = add("predict", "cli.predict", "run a model on the rows of an array, file to file")
    predict.add_argument("model", metavar="MODEL", help=model)
    predict.add_argument("input", metavar="IN.npy", help="rows as samples; may exceed memory")
    predict.add_argument(
        "-o", "--output", metavar="OUT.npy", required=True, help="there as soon as it is complete"
    )
    predict.add_argument("--batch-size", metavar="N", type=_positive, help="rows at a time")
    predict.add_argument(
        "--argmax", action="store_true", help="write the index of the largest output (int64)"
    )
    bench = add("bench", "cli.bench", "time a model, or a few, against the same lines in NumPy")
    bench.add_argument("model", metavar="MODEL", nargs="?", help=model)
    bench.add_argument(
        "--batch", metavar="N", type=_positive, nargs="+", default=[1, 32, 1024], help="rows a call"
    )
    bench.add_argument("--picture", metavar="FILE", help="write a picture too: .svg, .png or .pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 well, 1 failed, 2 wrong usage, 130 on Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        status: int = import_module(f"fastlayer.{args.module}").run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough, as in `python -m fastlayer demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    # What files and their contents can cause. Anything else is a bug, and shows its traceback.
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"{_PROGRAM} {args.name}: {_one_line(error)}", file=sys.stderr)
        return 1
    return status


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or "out of memory"


if __name__ == "__main__":
    sys.exit(main())

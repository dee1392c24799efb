"""The arguments of the commands, and their exit statuses. Only the module of one is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from fastlayer import __version__
from fastlayer.cli.environment import script

_COMMANDS = {  # modules, and what they do
    "demo": "read handwritten digits and race NumPy at it",
    "info": "show version, build, instruction sets and threads",
    "summary": "show the layers of a model",
    "predict": "run a model on the rows of a table or array, file to file",
    "bench": "time a model, or a few, against the same lines in NumPy",
}
_MODEL = "model file: .npz, .safetensors, .onnx, .keras or .h5"


def _program() -> str:
    return script() or "python -m fastlayer"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive integer"  # argparse puts it into its message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(), description="Dense neural networks on NumPy arrays."
    )
    parser.add_argument("--version", action="version", version=f"fastlayer {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    add = {}
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add[name] = command.add_argument
    add["summary"]("model", metavar="MODEL", help=_MODEL)
    add["predict"]("model", metavar="MODEL", help=_MODEL)
    add["predict"](
        "input",
        metavar="IN",
        help=".npy, .csv or .parquet: rows as samples, all inputs beside each other; may exceed memory",
    )
    output = "of the same formats; there as soon as it is complete"
    add["predict"]("-o", "--output", metavar="OUT", required=True, help=output)
    add["predict"](
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether a .csv file begins with the names of its columns; by default if it begins with text",
    )
    add["predict"]("--batch-size", metavar="N", type=_positive, help="rows at a time")
    largest = "write the index of the largest output (int64)"
    chosen = "which of several outputs of the model to write"
    add["predict"]("--select", metavar="NAME", help=chosen)
    add["predict"]("--argmax", action="store_true", help=largest)
    add["bench"]("model", metavar="MODEL", nargs="?", help=_MODEL)
    sizes = [1, 32, 1024]
    add["bench"](
        "--batch", metavar="N", type=_positive, nargs="+", default=sizes, help="rows a call"
    )
    add["bench"]("--picture", metavar="FILE", help="write a picture too: .svg, .png or .pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 well, 1 failed, 2 wrong usage, 130 on Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        import_module(f"fastlayer.cli.{args.command}").run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough, as in `python -m fastlayer demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    # What files and their contents can cause. Anything else is a bug, and shows its traceback.
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"{_program()} {args.command}: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or "out of memory"

"""Files of stable-baselines3, .zip: the policy's tensors, and what the agent was made with.

A zip archive holds ``policy.pth``, a file of PyTorch, and ``data``, JSON in which each object stands
as a pickle beside its readable attributes. Only those are read; the pickles are text to us.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastlayer.errors import Damaged
from fastlayer.files.pt import content
from fastlayer.files.reading import parse_json, reading, require
from fastlayer.files.zip import members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.files.model_file import ModelFile

_POLICY, _DATA = "policy.pth", "data"


@contextmanager
def stored(source: str | ModelFile) -> Iterator[Any]:
    """Return the state dict of the policy, with a `Stored` for each tensor.

    The tensors are to be read while the file is open.

    Raises
    ------
    ModelFileError
        A file that is damaged or of another format.
    """
    with reading(source) as file:
        archive = members(file)
        torch = any(name.endswith("data.pkl") for name in archive)
        first = "parameter_list" in archive
        hint = "; this is a file of torch.save, whose name ends in .pt" if torch else ""
        hint = "; this is of stable-baselines 2, whose weights are TensorFlow's" if first else hint
        require(_POLICY in archive, _POLICY, f"is missing: no agent of stable-baselines3{hint}")
        try:
            yield content(archive[_POLICY].opened())
        except Damaged as error:
            raise Damaged(f"{_POLICY}: {error.key}", error.why) from error


def settings(source: str | ModelFile) -> dict[str, Any]:
    """Return what the agent was made with, by name."""
    with reading(source) as file:
        archive = members(file)
        require(_DATA in archive, _DATA, "is missing: no agent of stable-baselines3")
        held = parse_json(archive[_DATA].read(), _DATA)
        require(isinstance(held, dict), _DATA, "is not a JSON object")
        found: dict[str, Any] = held
        return found

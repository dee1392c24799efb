"""The class and the files that more than one peer starts from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from peers import numpy_plain

ABOVE = None  # where the worker puts files: the run removes it after the case


def folder() -> Path:
    """A new one."""
    return Path(tempfile.mkdtemp(dir=ABOVE))


class Handwritten:
    """A network as one writes it in NumPy; samples are rows, or columns."""

    def __init__(self, case, dtype: str) -> None:
        layers, self.columns = case.layers(dtype), case.layout == "columns"
        self.weights = [w if self.columns else w.T.copy() for w, _, _ in layers]
        self.biases = [b[:, None] if self.columns else b for _, b, _ in layers]

    def forward(self, x):
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = weight @ x + bias if self.columns else x @ weight + bias
            x = np.maximum(z, 0) if i < len(self.weights) - 1 else z
        return x


def state_dict_file(case, dtype: str) -> Path | None:
    """Weights and biases by PyTorch's names; None where the package that writes it is missing."""
    arrays = {}
    for i, (weight, bias, _) in enumerate(case.layers(dtype)):
        arrays |= {f"{2 * i}.weight": weight, f"{2 * i}.bias": bias}
    path = folder() / f"model.{case.layout}"
    try:
        if case.layout == "pt":
            import torch

            torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
        else:
            from safetensors.numpy import save_file

            save_file(arrays, path)
    except ImportError:
        return None
    return path


def npz_file(case, dtype: str) -> Path:
    path, arrays = folder() / "model.npz", {}
    for i, (weight, bias, _) in enumerate(case.layers(dtype)):
        arrays |= {f"weight{i}": weight, f"bias{i}": bias}
    np.savez(path, **arrays)
    return path


def read_npz(path: Path):
    """What one writes to use such a file."""
    with np.load(path) as file:
        layers = [(file[f"weight{i}"], file[f"bias{i}"]) for i in range(len(file.files) // 2)]

    def forward(h):
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight.T + bias
            if i < len(layers) - 1:
                h = numpy_plain.FORMULAS["relu"](h)
        return h

    return forward

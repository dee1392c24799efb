"""Rows of a network as samples of an ONNX model, for the proof that both do the same."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._onnx.dims import BATCH, UNKNOWN, known, size
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.network.network import Network


class Rows:
    """Rows of a network as samples of a model, whatever the shapes of its inputs."""

    def __init__(
        self, net: Network, shapes: dict[str, tuple[int, ...]], frozen: int | None, usual: int
    ) -> None:
        self.frozen = frozen
        first, *others = shapes.values()
        # Whether the model takes a single sample.
        self.one = BATCH not in first
        self.widths, self.outputs = net._in.widths, net._out.widths
        sample = [d for d in first if d != BATCH]
        given = prod(d for d in sample if d != UNKNOWN) or 1
        flat = any(isinstance(part, Flatten) for part in net.layers)
        features = size(tuple(sample)) if flat else sample[-1]
        self.features = sum(self.widths) or net.in_features or known(features) or usual
        if UNKNOWN in sample:
            at = len(sample) - 1 - sample[::-1].index(UNKNOWN)
            sample[at] = max(self.features // given, 1)
        samples = [[1 if d == UNKNOWN else d for d in sample]]
        samples += [[d for d in shape if d != BATCH] for shape in others]
        self.samples = dict(zip(shapes, samples, strict=True))
        # Where the network works on the last of several axes, a sample has several rows.
        self.rows = 1 if others else max(prod(samples[0]) // self.features, 1)

    def _beside(self, given: list[Array], count: int) -> Array:
        """Return what a model gives for so many rows, as rows; a constant is the same in each."""
        if not self.outputs:
            return given[0].reshape(count, -1)
        each = zip(given, self.outputs, strict=True)
        rows = [np.broadcast_to(y.reshape(-1, n), (count, n)) for y, n in each]
        return np.concatenate(rows, axis=1)

    def runner(
        self, run: Callable[[dict[str, Array]], list[Array]], most: int, opened: bool
    ) -> Callable[[Array], Array]:
        """Return what runs a model on rows, no more than `most` samples at once.

        A model with a fixed number of samples gets that many, or where it is `opened`, the first
        ones so and the others together.
        """
        rows = self.rows

        def samples(x: Array, step: int) -> Array:
            padded = np.concatenate([x, np.repeat(x[:1], -len(x) % (rows * step), axis=0)])
            columns = np.split(padded, np.cumsum(self.widths)[:-1], axis=1) or [padded]
            batches = []
            for part, sample in zip(columns, self.samples.values(), strict=True):
                shape = sample if self.one else [step, *sample]
                batches.append(part.reshape(-1, *shape))
            results = []
            for parts in zip(*batches, strict=True):
                given = run(dict(zip(self.samples, parts, strict=True)))
                results.append(self._beside(given, rows * step))
            return np.concatenate(results)[: len(x)]

        def reference(x: Array) -> Array:
            together = min(most, -(-len(x) // rows))
            step = 1 if self.one else self.frozen or together
            if not opened or step >= together:
                return samples(x, step)
            first = rows * step
            return np.concatenate([samples(x[:first], step), samples(x, together)[first:]])

        return reference

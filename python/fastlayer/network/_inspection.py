"""The half of `Network` that looks inside: activations, summary, profile, verify."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from fastlayer.arrays import as_real, cast
from fastlayer.network.chain import Parts
from fastlayer.network.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array
    from fastlayer.network.network import Network
    from fastlayer.report.profile import Profile
    from fastlayer.report.summary import Summary
    from fastlayer.report.verification import Verification


class Inspection(Parts):
    """What a network tells about itself; `Network`, the only one, adds the rest."""

    def activations(self, x: ArrayLike) -> list[tuple[Array, Array]]:
        """Return ``(a, z)`` for every layer: what it gives, and what its activation got.

        For parts that are not a `Layer`, `z` is their input. The layers are run one by one, as
        they are: without the folding of `BatchNorm` that a call of the network does.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features).

        Returns
        -------
        list of (ndarray, ndarray)
            One pair for each layer, of shape (..., out_features) of that layer and `dtype`.

        Raises
        ------
        ValueError
            A wrong shape of `x`.
        TypeError
            Complex, masked or non-numeric `x`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[2.0]]), "relu"])
        >>> net.activations([-1.0])
        [(array([-2.]), array([-2.])), (array([0.]), array([-2.]))]
        """
        net = typing.cast("Network", self)
        pairs = []
        a = as_real(x)
        for i, part in enumerate(self._parts):
            if isinstance(part, Layer):
                a, z = part.forward(a, return_preactivation=True)
            else:
                z = cast(a, self._dtype)
                a = net[i : i + 1](z)
            pairs.append((a, z))
        return pairs

    def summary(self) -> Summary:
        """Return a table of the layers; print it, or read its `rows`.

        Returns
        -------
        Summary
            Layers, shapes, activations, kernels, parameters, bytes, and floating-point operations
            for one row.

        Examples
        --------
        >>> import fastlayer as fl
        >>> summary = fl.Network([fl.Layer(4, 2, "relu")]).summary()
        >>> summary.rows[0]["parameters"], summary.rows[0]["flops"]
        (10, 16)
        """
        from fastlayer.report.summary import Summary

        return Summary(typing.cast("Network", self))

    def profile(self, x: ArrayLike, *, repeat: int = 10) -> Profile:
        """Measure the time of each layer on `x`; print the result, or read its `rows`.

        Each layer runs on its own, `repeat` times, and the fastest counts; the network as a
        whole, which keeps activations in cache between layers, is measured beside them.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features).
        repeat : int
            How often each layer runs, at least 1.

        Returns
        -------
        Profile
            Seconds of each layer and of the whole, shares, and GFLOP/s (10^9 floating-point
            operations a second).

        Raises
        ------
        ValueError
            A wrong shape of `x`, a `repeat` below 1.
        TypeError
            Complex, masked or non-numeric `x`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> profile = fl.Network([fl.Layer(4, 8, "relu"), fl.Layer(8, 3)]).profile(np.ones((5, 4)))
        >>> [row["layer"] for row in profile.rows], profile.samples
        (['Layer(4, 8)', 'Layer(8, 3)'], 5)
        """
        from fastlayer.report.profile import Profile

        return Profile(typing.cast("Network", self), x, repeat)

    def verify(self, reference: Callable[[Any], Any], x: ArrayLike) -> Verification:
        """Compare with another implementation of the same network on `x`.

        Parameters
        ----------
        reference : callable
            Called with `x`; returns an array of the same shape as ``net(x)``.
        x : array_like
            The input for both.

        Returns
        -------
        Verification
            Largest absolute and relative error, largest error in units of the last place of
            `dtype`, share of rows whose argmax agrees. Prints as a table.

        Raises
        ------
        ValueError
            The results have different shapes.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> layer = fl.Layer(8, 3, rng=0, dtype=np.float64)
        >>> report = fl.Network([layer]).verify(lambda x: x @ layer.weight.T, np.ones((5, 8)))
        >>> report.argmax_agreement
        1.0
        """
        from fastlayer.report.verification import Verification

        return Verification(typing.cast("Network", self), reference, x)

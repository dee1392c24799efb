"""What `from_sklearn` returns: a network that predicts as the estimator did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64, as_real
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.report.verification import Proof


class Regressor:
    """Stand-in for a fitted regressor; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, scalers included: (..., n_features) to (..., n_outputs).
    n_features_in_ : int
        Number of features.
    verification : Proof or None
        How far it was from the estimator on the probe, where it was verified.
    """

    def __init__(self, network: Network, flat: bool, floats: bool) -> None:
        self.network = network
        self._wide: Network | None = None
        self._flat = flat  # one output, and no axis for it
        self._floats = floats  # a scaler makes integers float64

    @property
    def verification(self) -> Proof | None:
        """How far `network` was from the estimator on the probe, where it was verified."""
        return self.network.verification

    @property
    def n_features_in_(self) -> int:
        """Number of features that a row has."""
        return self.network.in_features or 0

    def __call__(self, x: ArrayLike) -> Array:
        """Run the network, in the dtype of the estimator's weights.

        Parameters
        ----------
        x : array_like
            Shape (..., n_features).

        Returns
        -------
        ndarray
            Shape (..., n_outputs): values, or probabilities.

        Raises
        ------
        ValueError
            Another number of features.
        """
        return self.network(x)

    def predict(self, x: ArrayLike) -> Array:
        """Return the predictions of the estimator.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features). float64 beside float32 weights gives float64, as in
            scikit-learn.

        Returns
        -------
        ndarray
            Shape (n_samples,) or (n_samples, n_outputs).

        Raises
        ------
        ValueError
            Another number of features.
        TypeError
            A sparse matrix, strings or objects.
        """
        y = self._run(x)
        return y[..., 0] if self._flat else y

    def _run(self, x: ArrayLike) -> Array:
        a = as_real(x)
        return self._network_for(a.dtype)(a)

    def _network_for(self, dtype: DType) -> Network:
        if self.network.dtype == FLOAT64 or (dtype.kind == "f" and dtype.itemsize <= 4):
            return self.network
        if np.result_type(dtype, FLOAT32) == FLOAT32 and not self._floats:
            return self.network
        if self._wide is None:
            self._wide = self.network.astype(FLOAT64)
        return self._wide

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.network!r})"


class Classifier(Regressor):
    """Stand-in for a fitted classifier; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, scalers included: (..., n_features) to probabilities. Two classes have
        one output, the probability of ``classes_[1]``.
    classes_ : ndarray
        The labels, in the order of the probabilities.
    n_features_in_ : int
        Number of features.
    verification : Proof or None
        How far it was from the estimator on the probe, where it was verified.
    """

    def __init__(
        self, network: Network, floats: bool, classes: Array, kind: str, scores: bool
    ) -> None:
        super().__init__(network, False, floats)
        self.classes_ = classes
        self._kind = kind  # "binary", "multiclass" or "multilabel-indicator"
        self._by_scores = scores  # labels come from the sums, before sigmoid or softmax

    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the probability of every class; of every label where there can be several.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes).
        """
        p = self._run(x)
        return np.concatenate([1 - p, p], axis=-1) if self._kind == "binary" else p

    def predict(self, x: ArrayLike) -> Array:
        """Return the labels, as the estimator does.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples,), elements of `classes_`; where a sample can have several labels,
            (n_samples, n_classes) of 0 and 1.

        Raises
        ------
        ValueError
            Another number of features, or NaN in a result, which belongs to no class.
        """
        a = as_real(x)
        net = self._network_for(a.dtype)
        y = _without_last(net)(a) if self._by_scores else net(a)
        lost = np.isnan(y).any(axis=-1)
        if lost.any():
            raise ValueError(
                f"predict: {int(lost.sum())} of {lost.size} rows give NaN, which is no class; look "
                "for NaN or infinity in x"
            )
        return self._labels(y, 0.0 if self._by_scores else 0.5)

    def _labels(self, y: Array, threshold: float) -> Array:
        if self._kind == "multiclass":
            labels: Array = self.classes_[np.argmax(y, axis=-1)]
            return labels
        above = (y > threshold).astype(np.int64)
        if self._kind == "binary":
            return self.classes_[np.minimum(above[..., 0], len(self.classes_) - 1)]
        return above


def _without_last(net: Network) -> Network:
    """Return the network without its last activation."""
    layer: Any = net[-1]
    plain = Layer.from_arrays(layer.weight, layer.bias, dtype=layer.dtype)
    return Network([*net.layers[:-1], plain])

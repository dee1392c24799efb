"""What the parameters of both perceptrons are, as types, and scikit-learn's decorators with types."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal, TypeAlias, TypeVar

    import numpy as np

    from fastlayer.arrays import Array
    from fastlayer.functions.activation import Activation
    from fastlayer.names import ActivationName
    from fastlayer.train.loss import NamedLoss

    M = TypeVar("M")

    Sizes: TypeAlias = int | Sequence[int] | Array
    Hidden: TypeAlias = ActivationName | Activation | Sequence[ActivationName | Activation]
    Solver: TypeAlias = Literal["adam", "sgd", "lbfgs", "adamw"]
    LearningRate: TypeAlias = Literal["constant", "invscaling", "adaptive"]
    RandomState: TypeAlias = int | np.random.RandomState | None
    ClassWeight: TypeAlias = Mapping[Any, float] | Sequence[Mapping[Any, float]]
    OwnLoss: TypeAlias = NamedLoss | Callable[[Array, Array], tuple[float, Array]]
    ClassifierLoss: TypeAlias = Literal["log_loss"] | OwnLoss
    RegressorLoss: TypeAlias = (
        Literal["squared_error", "poisson", "absolute_error", "mae", "huber"] | OwnLoss
    )

    def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[M], M]: ...
    def available_if(check: Callable[[Any], bool]) -> Callable[[M], M]: ...

else:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils.metaestimators import available_if

__all__ = ["available_if", "fit_context"]

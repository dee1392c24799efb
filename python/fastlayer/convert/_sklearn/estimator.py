"""What an object of scikit-learn is: by the name of its class, and the attributes of a fitted one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable


def kind_of(estimator: Any) -> str:
    """Return the name of scikit-learn's class that an object is of, or derived from."""
    homes = ("sklearn.", "fastlayer.sklearn.")
    kinds = (k.__name__ for k in type(estimator).__mro__ if k.__module__.startswith(homes))
    return next(kinds, "")


def place_of(estimator: Any, name: str = "") -> str:
    """Return what messages call it; `name` is that of the step that it is."""
    kind = f"{'sklearn ' if kind_of(estimator) else ''}{type(estimator).__name__}"
    return f"step {name!r} ({kind})" if name else kind


def is_skipped(step: Any) -> bool:
    """Whether a step of a pipeline hands its rows on."""
    if kind_of(step) == "Pipeline":
        return not steps_of(step)
    return step is None or (isinstance(step, str) and step == "passthrough")


def steps_of(pipeline: Any) -> list[tuple[str, Any]]:
    """Return the steps of a Pipeline that do something, with their names."""
    return [(name, step) for name, step in pipeline.steps if not is_skipped(step)]


def first_of(estimator: Any) -> Any:
    """Return what gets the rows first: the first step of a pipeline, in each other."""
    if kind_of(estimator) == "TransformedTargetRegressor":
        return first_of(estimator.regressor_)
    steps = steps_of(estimator) if kind_of(estimator) == "Pipeline" else []
    return first_of(steps[0][1]) if steps else estimator


def seen(first: Any, name: str) -> Any:
    """Return an attribute of what gets the rows first, None where it has none; see `first_of`."""
    found = getattr(first, name, None)
    if found is None and kind_of(first) == "FeatureUnion":  # which asks its first one, "drop" even
        each = (seen(first_of(t), name) for _, t in first.transformer_list)
        found = next((value for value in each if value is not None), None)
    return found


def fitted(read: Callable[[Any], Any], estimator: Any, place: str) -> Any:
    """Read the attributes that an estimator has where it is fitted."""
    try:
        return read(estimator)
    except AttributeError as error:
        raise ConversionError(place, f"it is not fitted ({error}); call fit first") from None

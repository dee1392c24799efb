"""The errors that the rooms of the package hand to each other and to the user."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class ModelFileError(ValueError):
    """A model file that is damaged, of an unknown version, or not a model.

    Parameters
    ----------
    path : str
        The file.
    key : str
        The place in it.
    why : str
        What is wrong there.

    Attributes
    ----------
    path, key, why : str
        As above.

    Examples
    --------
    >>> import fastlayer as fl
    >>> issubclass(fl.ModelFileError, ValueError)
    True
    """

    def __init__(self, path: str, key: str, why: str) -> None:
        super().__init__(f"{path}: {key}: {why}")
        self.path = path
        self.key = key
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelFileError, (self.path, self.key, self.why)


class ConversionError(ValueError):
    """A model that can't be converted exactly; nothing is ever approximated.

    Parameters
    ----------
    place : str
        The layer or node, as its own framework names it: ``layer 3, 'lstm_1' (keras LSTM)``.
    why : str
        What is the matter, and what to do.

    Attributes
    ----------
    place, why : str
        As above.

    Examples
    --------
    >>> import fastlayer as fl
    >>> issubclass(fl.ConversionError, ValueError)
    True
    """

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place
        self.why = why

    def __reduce__(self) -> tuple[type[ConversionError], tuple[str, str]]:
        return ConversionError, (self.place, self.why)


class Damaged(ValueError):
    """What is wrong with a file, and where in it; becomes a `ModelFileError` with its name."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


@contextmanager
def unfit(key: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a constructor says of the values of a file into `Damaged`."""
    try:
        yield
    except kinds as error:
        raise Damaged(key, str(error)) from None


class ShapeMismatch(ValueError):
    """Raised with the number of features a program takes; callers turn it into a message."""

    def __init__(self, features: int, shape: tuple[int, ...]) -> None:
        super().__init__(f"expected {features} features, got an array of shape {shape}")
        self.features = features
        self.shape_seen = shape

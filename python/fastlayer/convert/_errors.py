"""How a converter says no: where, what, why, and what to do instead."""

from __future__ import annotations


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

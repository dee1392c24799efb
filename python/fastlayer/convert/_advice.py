"""What to do about layers that fastlayer does not have, for every framework alike."""

from __future__ import annotations

# Parts of a layer's name, in the order in which they are looked for.
_ADVICE = (
    (("LSTM", "GRU", "RNN", "Bidirectional"), "run the recurrent part with its framework"),
    (("Embedding",), "look the vectors up with NumPy, table[indices],"),
    (("Attention", "Transformer"), "run the attention with its framework"),
    (
        ("Conv", "Pool", "Upsampl", "Pad", "2d", "3d"),
        "run the convolutional part with its framework",
    ),
    (("Lambda",), "write what it does as layers: code in a model is never run,"),
    (("Quant", "Int8"), "convert the model that it was quantised from"),
    (("GroupNorm", "InstanceNorm"), "run it with its framework"),
)


def advice(kind: str) -> str:
    """Return why a layer of this kind can't be converted, and what to do instead.

    Examples
    --------
    >>> from fastlayer.convert._advice import advice
    >>> advice("Embedding")
    'fastlayer runs dense networks; look the vectors up with NumPy, table[indices], and convert \
the dense layers around it as networks of their own'
    """
    return special(kind) or _text("compute this step between the calls")


def special(kind: str) -> str | None:
    """Return that for what is well known, None for any other kind."""
    what = next((w for names, w in _ADVICE if any(n in kind for n in names)), None)
    return None if what is None else _text(what)


def _text(what: str) -> str:
    return (
        f"fastlayer runs dense networks; {what} and convert the dense layers around it as "
        "networks of their own"
    )

"""The proof that a converted network does what its source does: both run on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64, as_real, cast
from fastlayer.convert._rounding import rounding_bound
from fastlayer.errors import ConversionError
from fastlayer.report.verification import Proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.network.network import Network

ANY_WIDTH = 16  # features of the probe where the network takes any number
LARGE = 2.0**20
OTHERS = 11  # rows at most beside the random ones, of `probe`
# Products that the random rows take: every row meets all weights of a layer, so a large one needs
# fewer, but of each kind two.
_PRODUCTS, _FEWEST = 1 << 22, 8


def probe(features: int, dtype: DType, rows: int, rng: Any) -> tuple[Array, Array]:
    """Return rows of many kinds, and which of them are so large that formulas may overflow."""
    generator = np.random.default_rng(rng)
    k, some = features, max(1, -(-rows // 4))
    normal = generator.standard_normal((3, some, k))
    signs = generator.choice([-1.0, 1.0], (2, k))
    hot = np.zeros((min(k, 3), k))
    for row, column in zip(hot, (0, k - 1, k // 2), strict=False):
        row[column] = 1
    modest = [
        normal[0],
        generator.uniform(size=(some, k)),
        normal[1] * 1e-3,
        np.zeros((1, k)),
        np.ones((1, k)),
        -np.ones((1, k)),
        signs[:1],
        hot,
    ]
    large = [normal[2] * 1e3, LARGE * signs[1:]]
    x = np.concatenate(modest + large)
    return cast(x, dtype), np.arange(len(x)) >= sum(map(len, modest))


def prove(
    net: Network,
    reference: Callable[[Array], Any],
    *,
    source: str,
    inputs: ArrayLike | None = None,
    features: int = ANY_WIDTH,
    rows: int = 64,
    rng: int | np.random.Generator = 0,
    unfolded: Network | None = None,
    wide: Callable[[Array], Any] | None = None,
) -> Proof:
    """Run `net` and `reference` on the same rows; they may differ by rounding alone.

    The rows are random (normal, also times 1e-3 and 1e3, and uniform in [0, 1]), edge cases
    (zeros, ones, signs, one-hot, large), and those of `inputs`. What rounding may explain is derived
    for each element; see `_rounding`. On rows of large numbers the reference may overflow where
    the network does not: a formula such as ``exp(x) / sum(exp(x))`` does.

    Parameters
    ----------
    net : Network
        The result of a conversion.
    reference : callable
        The source: takes rows (m, k) of the network's dtype and returns (m, n).
    source : str
        What is converted, for messages: "torch Sequential".
    inputs : array_like, optional
        Rows of the source's own data; (m, ...) is reshaped to (m, k).
    features : int
        How many a row has where the network takes any number.
    rows : int
        Number of random rows, at most: a network of more than 65,536 parameters gets fewer.
    rng : int or numpy.random.Generator
        Seed.
    unfolded : Network, optional
        The same network with sums as the source has them, for the bound on rounding.
    wide : callable, optional
        The source computing in float64. It judges the elements of a float32 network that the
        reference differs in: where float32 overflows in the source, that is what is right.

    Returns
    -------
    Proof

    Raises
    ------
    ConversionError
        They differ by more than rounding, the message shows the worst row; or the reference
        fails, or returns another shape.
    """
    given = as_real([] if inputs is None else inputs, "inputs")
    given = given.reshape(len(given), -1) if given.size else np.empty((0, features))
    k = given.shape[1] if net.in_features is None else net.in_features
    rows = min(rows, max(_FEWEST, _PRODUCTS // max(net.num_parameters, 1)))
    x, stress = probe(k, net.dtype, rows, rng)
    if len(given):
        x = np.concatenate([cast(given, net.dtype), x])
        stress = np.concatenate([np.zeros(len(given), bool), stress])
    ours, theirs = net(x), _run(reference, x, source)
    if theirs.shape != ours.shape:
        raise ConversionError(
            source,
            f"the original gives shape {theirs.shape} for {x.shape}, the converted network "
            f"{ours.shape}",
        )
    judge = unfolded or net
    bound = rounding_bound(judge, x)
    bound[stress[:, None] & ~np.isfinite(theirs)] = np.inf
    proof = Proof(ours, theirs, bound, net.dtype)
    if not proof.bound_share <= 1 and wide is not None and net.dtype == FLOAT32:
        right = _attempt(wide, x.astype(FLOAT64))
        if right is not None and right.shape == ours.shape:
            right = np.where(proof._shares > 1, right, theirs)
            judged = Proof(ours, right, bound, net.dtype)
            proof = judged if judged.bound_share <= 1 else proof
    if not proof.bound_share <= 1:
        differ = (proof._shares > 1).any(axis=1)
        lost = np.isfinite(ours).all(axis=1) > np.isfinite(theirs).all(axis=1)
        if wide is None:  # numbers whose squares overflow make norms wrong, and finite
            largest = float(np.sqrt(np.finfo(net.dtype).max))
            lost |= np.isinf(rounding_bound(judge, x, largest)).any(axis=1)
        refusal = _refusal(proof._shares, x, ours, theirs, bound, bool(lost[differ].all()))
        raise ConversionError(source, refusal)
    return proof


def _attempt(reference: Callable[[Array], Any], x: Array) -> Array | None:
    """Return what a source gives in float64; None where it does not compute in that."""
    try:
        return _run(reference, x, "")
    except ConversionError:
        return None


def _run(reference: Callable[[Array], Any], x: Array, source: str) -> Array:
    try:
        with np.errstate(all="ignore"):
            return as_real(reference(x.copy()), "the original's result")
    except Exception as error:
        raise ConversionError(
            source, f"the original fails on a probe of shape {x.shape}: {error}"
        ) from error


def _refusal(
    share: Array, x: Array, ours: Array, theirs: Array, bound: Array, overflows: bool
) -> str:
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(share)), share.shape))
    a, b = ours[row, column], theirs[row, column]
    reason = "The original does something that the conversion did not see"
    if overflows:
        reason = (
            f"On these the numbers of the original overflow {theirs.dtype}, or are undefined, where "
            "the network's need not be"
        )
    return (
        "the converted network differs from the original by more than rounding. Worst row, "
        f"{_short(x[row])}: output {column} is {a:.8g} here and {b:.8g} there; rounding explains "
        f"{bound[row, column]:.2g}. {int((share > 1).any(axis=1).sum())} of {len(share)} rows "
        f"differ. {reason}; verify=False, where the converter has it, hands out the network as it is"
    )


def _short(row: Array) -> str:
    values = ", ".join(f"{v:.4g}" for v in row[:6])
    return f"x = [{values}{', ...' if len(row) > 6 else ''}]"

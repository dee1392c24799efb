"""A hand-written network found by what its forward pass does with its arrays."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64
from fastlayer.convert._numpy.arrays import Arrays
from fastlayer.convert._numpy.objects import name_of, original_of
from fastlayer.convert._numpy.program import Program
from fastlayer.convert._numpy.trace import common, traced
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array
    from fastlayer.network.network import Network
    from fastlayer.report.verification import Proof

# Sizes of its arrays that are tried as the number of features. Most fail at the first product.
_MOST_SIZES, _WIDEST = 24, 1 << 14


class Used:
    """A forward pass that was seen once, and runs on the object's arrays at each call.

    Parameters
    ----------
    obj : object
        The network.
    original : callable
        Its forward pass, whose name is `method`.
    method : str
        For messages.
    error : ConversionError, optional
        Why it was not found by names, which is raised where it can't be run either.

    Raises
    ------
    ConversionError
        It does what is not understood, or gives other results.
    """

    def __init__(
        self,
        obj: Any,
        original: Callable[..., Any],
        method: str,
        error: ConversionError | None = None,
    ) -> None:
        self._name = name_of(obj)
        self._obj, self._original = obj, original
        self.found = Arrays(obj)
        floats = {a.dtype for a in self.found.values if a.dtype.kind == "f" and a.ndim == 2}
        self._dtype = FLOAT32 if floats == {FLOAT32} else FLOAT64
        own = self.found.values[: self.found.own]
        sizes = dict.fromkeys(n for a in own if a.ndim < 3 for n in a.shape)
        wider = [n - 1 for n in sizes]  # of features and a bias
        named = [n for n in self.found.numbers if n < _WIDEST]  # for weights in one flat array
        self._sizes = [n for n in dict.fromkeys([*sizes, *wider, *named]) if n > 0][:_MOST_SIZES]
        taken = {n + d for n in sizes for d in (-1, 0, 1)}
        # Two sizes of a batch that are those of no axis; one is odd.
        odd, even = (
            next(n for n in range(start, 2 * len(taken) + 8, 2) if n not in taken)
            for start in (5, 6)
        )
        self._samples = odd, even
        with self.found.undisturbed(), np.errstate(all="ignore"):
            self._understand(method, error)

    def _understand(self, method: str, error: ConversionError | None) -> None:
        why: Exception | None = None
        for form, k in self._ways(method):
            if form == "vector" and why is not None:
                break  # batches would go to the original without a word
            try:
                program, self.proof = self._proven(form, k)
            except (LookupError, TypeError, ValueError) as refused:  # a ConversionError among them
                why = why or refused
                continue
            self._k, self.form = k, form
            self._programs = {1 if form == "vector" else 2: program}
            if form != "vector":
                with suppress(LookupError, TypeError, ValueError):
                    self._programs[1] = self._proven("vector", k)[0]
            for program in self._programs.values():
                self.found.use(program.arrays, program.numbers)
            return
        if error is None:
            none = f"{method} runs for no shape of input that the sizes of its arrays make likely"
            raise ConversionError(self._name, none if why is None else str(why)) from why
        if why is None:
            raise error
        raise ConversionError(
            error.place,
            f"{method} was followed through its operations: {why}. Before that, arrays and layers "
            f"were looked for by usual names: {error.why}",
        ) from why

    def _ways(self, method: str) -> Iterator[tuple[str, int]]:
        """Yield the forms and numbers of features with which the original runs."""
        for form in ("rows", "columns", "vector"):
            for k in self._sizes:
                x = self._input(form, k, 0)
                try:
                    y = self._original(x)
                except Exception:  # noqa: BLE001, S112  # whatever it raises for a wrong shape
                    continue
                if isinstance(y, tuple | list):
                    raise ConversionError(
                        self._name,
                        f"{method} returns a {type(y).__name__}; accelerate takes networks "
                        "that return one array (for (a, z) there is fl.dense_forward); give a "
                        "method that does, such as fl.accelerate(network.predict)",
                    )
                yield form, k

    def _input(self, form: str, k: int, seed: int) -> Array:
        m = self._samples[seed]
        shape = {"rows": (m, k), "columns": (k, m), "vector": (k,)}[form]
        return np.random.default_rng(seed).standard_normal(shape).astype(self._dtype)

    def _noted(self, form: str, k: int) -> Program:
        def run(obj: Any, x: Any) -> Any:
            return original_of(obj)[0](x)

        runs = []
        for seed in (0, 1):
            try:
                runs.append(traced(self._obj, self.found, run, self._input(form, k, seed), seed))
            except ConversionError:
                raise
            except Exception as error:
                raise ConversionError(
                    self._name, f"its forward pass can't be followed: {error}"
                ) from error
        (first, result, _), (second, _, _) = runs
        nodes = common(first, second, self._samples)
        if result is None:
            raise ConversionError(self._name, "its result is no array that NumPy computed")
        samples = None if form == "vector" else self._samples[0]
        return Program(nodes, self.found.places, result.node, samples)

    def _proven(self, form: str, k: int) -> tuple[Program, Proof]:
        """Return what the original does, after network and calls did the same on a probe."""
        program = self._noted(form, k)
        net = self._network(program, k)

        def original(x: Array, _: int | None) -> Any:
            return self._original(x)

        def noted(x: Array, samples: int | None) -> Any:
            return program.replayed(x, samples, scores=True)

        def scores(x: Array, samples: int | None) -> Any:
            return program(x, samples, scores=True)

        def one_by_one(run: Callable[[Array, int | None], Any]) -> Callable[[Array], Array]:
            return lambda x: np.concatenate([program.rows(run, row[None]) for row in x])

        reference = original if program.ends_in_rows else noted
        proof = prove(net, lambda x: program.rows(reference, x), source=self._name, features=k)
        running: Any = _Running(net, lambda x: program.rows(scores, x))
        prove(running, lambda x: program.rows(reference, x), source=self._name, features=k)
        running.run = one_by_one(scores)
        prove(running, one_by_one(reference), source=self._name, features=k, rows=8)
        if not program.ends_in_rows:
            self._compare_ends(program, form, k)
        return program, proof

    def _compare_ends(self, program: Program, form: str, k: int) -> None:
        """See that labels and the like are those of the original."""
        for seed in (0, 1):
            x = self._input(form, k, seed)
            samples = None if form == "vector" else self._samples[seed]
            theirs = np.asarray(self._original(x.copy("K")))
            found = [program.replayed(x, samples)]
            if theirs.dtype.kind != "f":
                found.append(program(x, samples))
            for ours in map(np.asarray, found):
                # the same operations of NumPy on the same arrays: the same bits
                same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
                if not same or not np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"):
                    raise ConversionError(
                        self._name, "what it does after its last layer gives other results here"
                    )

    def __call__(self, x: Array) -> Any:
        """Run the forward pass of a plain array; None where it has other sizes than proven."""
        program = self._programs.get(x.ndim)
        columns = self.form == "columns" and x.ndim == 2
        if program is None or x.shape[0 if columns else -1] != self._k:
            return None
        samples = None if x.ndim == 1 else x.shape[1 if columns else 0]
        y = program(x, samples)
        # An original that takes a batch apart does so in other pieces for more samples.
        return y if program.gives(y, samples) else None

    def network(self) -> Network:
        """Return a network of its own with the weights as they are now."""
        return self._network(next(iter(self._programs.values())), self._k)

    def _network(self, program: Program, k: int) -> Network:
        if len(program.dtypes) > 1:
            listed = ", ".join(sorted(map(str, program.dtypes)))
            raise ConversionError(self._name, f"its weights are {listed}; make all one dtype")
        try:
            return program.network(k, self._dtype, self._name)
        except (TypeError, ValueError) as error:
            raise ConversionError(self._name, str(error)) from error


class _Running:
    """The program in the place of its network, whose rounding errors it has."""

    def __init__(self, net: Network, run: Callable[[Array], Array]) -> None:
        self._net, self.run = net, run

    def __call__(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return self.run(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

"""A model's configuration, as Keras writes it for Sequential and functional models, as a graph.

The configuration is plain data: from a live model, or from the JSON in a file, where it is not to be
trusted. No name in it chooses what code runs beyond the tables of `layers`.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import float_dtype
from fastlayer.convert._advice import advice
from fastlayer.convert._graph import Cut, Dense, Draft, Flat, Join, OneRow, Point, join
from fastlayer.convert._keras.calls import FUNCTIONS, MOST_LAYERS, Call, flat, ordered, refs_of
from fastlayer.convert._keras.given import MODELS, Given, Names, as_dict, is_custom, snake_case
from fastlayer.convert._keras.layers import steps
from fastlayer.convert._keras.operations import operation, was_always_read
from fastlayer.convert._keras.shapes import Flow, flattened, product
from fastlayer.convert._keras.tensorflow import as_operation
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.reading import require
from fastlayer.network.ends import Ends, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from fastlayer.arrays import DType
    from fastlayer.convert._keras.calls import Ref
    from fastlayer.convert._keras.given import Path, Shape, Source

    Made = TypeVar("Made")
    Key = tuple[str, int]  # a layer's name, and the number of a call of it

_DEEPEST = 16
# Layers around one layer that do in inference what it does, to each step of a series or to all.
_AROUND = ("SpectralNormalization", "TimeDistributed")


def from_config(
    spec: Any, source: Source, name: str, outputs: str | Sequence[str] | None = None
) -> Draft:
    """Return the draft of a model's network.

    Parameters
    ----------
    spec : dict
        ``{"class_name": ..., "config": ...}``.
    source : Source
        Where the weights are, and what the version of Keras decides.
    name : str
        The model, for messages.
    outputs : str or list of str, optional
        Which ones, where it has several.

    Raises
    ------
    ConversionError
        A layer, or a way to connect layers, without an exact counterpart.
    Damaged
        A configuration that no Keras writes.
    """
    exact = _Walk(source, outputs, 0.0)
    try:
        draft = exact.draft(spec, name)
        if not exact.written_out:
            return draft
    except ConversionError:
        pass
    # Constants of the user's may be rounded: formulas are found with leave to be that far apart.
    return _Walk(source, outputs, float(np.finfo(exact.dtype).eps)).draft(spec, name)


def names_of(spec: dict[str, Any], source: Source) -> list[Names]:
    """Return the names of a model's own layers."""
    specs = as_dict(spec.get("config"), "config").get("layers")
    if not isinstance(specs, list) or len(specs) > MOST_LAYERS:
        raise Damaged("config", "has no layers, or too many")
    layers = _Walk(source, None, 0.0)._layers([as_dict(s, "config") for s in specs], "", ())
    return [given.path[-1] for given in layers]


class _Walk:
    """From the input of a model to its output, through the models inside of it."""

    def __init__(self, source: Source, chosen: str | Sequence[str] | None, eps: float) -> None:
        self.source = source
        self.chosen = chosen
        self.eps = eps  # how far constants may be rounded
        self.dtypes: dict[str, str] = {}  # and the first place of each
        self.input_dtype = "float32"
        self.shape: Shape = None  # of the input
        self.inputs = Ends()
        self.count = 0
        self.masked = False
        self.written_out = False  # operations of the user's are among the layers

    @property
    def dtype(self) -> DType:
        """Of the network: that of the first layer that has one."""
        return float_dtype(next(iter(self.dtypes), self.input_dtype))

    def draft(self, spec: Any, name: str) -> Draft:
        """Return the draft of a model's network."""
        ends = self.model(spec, (), None)
        if len(self.dtypes) > 1:
            (first, a), (second, b) = list(self.dtypes.items())[:2]
            raise ConversionError(b, f"is {second}, but {a} is {first}; a network has one dtype")
        for end in ends.values():
            if len(end.shape or ()) > len(end.held or ()):
                raise ConversionError(
                    name,
                    f"gives arrays of shape {end.shape}, with axes of length one that its layers "
                    "have put in; end the model before, and reshape the result",
                )
        point, outputs = _beside(ends, name, self.chosen is None or isinstance(self.chosen, str))
        point.running()
        features = self.shape[-1] if self.shape else None
        return Draft(point, self.dtype, name, features, ends=(self.inputs, outputs))

    def model(self, spec: Any, path: Path, starts: list[Flow] | None) -> dict[str, Flow]:
        """Return the outputs of a model, given its inputs; the outermost has no others."""
        key = f"model {path[-1].name!r:.60}" if path else "config"
        spec = as_dict(spec, key)
        kind, config = spec.get("class_name"), spec.get("config")
        if is_custom(spec) or kind not in MODELS:
            raise ConversionError(
                key if path else f"model (keras {kind!s:.60})",
                "is neither Sequential nor functional: what it does is Python code, which is not in "
                "its configuration; convert the Sequential parts of it one by one",
            )
        if isinstance(config, list):  # Sequential before Keras 2.2.3
            config = {"layers": config}
        config = as_dict(config, key)
        specs: Any = config.get("layers")
        fits = isinstance(specs, list) and len(specs) <= MOST_LAYERS and len(path) <= _DEEPEST
        require(fits, key, "has no layers, too many, or models too deep inside each other")
        self.count += len(specs)
        require(self.count <= MOST_LAYERS, "config", f"has more than {MOST_LAYERS} layers")
        layers = list(self._layers([as_dict(s, key) for s in specs], kind, path))
        if kind != "Sequential":
            return self._graph(key, config, layers, starts)
        flows = starts or [Flow(Point(eps=self.eps), None, None)]
        for given in layers:
            flows = self._layer(given, Call([*flows], {}))
        if len(flows) != 1:
            raise ConversionError(key, f"is Sequential, and gives {len(flows)} arrays")
        name = layers[-1].path[-1].name if layers else "output"
        outputs = {name: flows[0]}
        return self._selected(outputs, key) if starts is None else outputs

    def _selected(self, outputs: dict[str, Any], key: str) -> dict[str, Any]:
        """Return the outputs that were asked for."""
        return {name: outputs[name] for name in selected(self.chosen, [*outputs], key)}

    def _layers(self, specs: list[dict[str, Any]], model: str, path: Path) -> Iterator[Given]:
        """Yield the layers of a model with their names, and the names of their weights."""
        used: Counter[str] = Counter()
        inside = f" of {path[-1].name!r:.60}" if path else ""
        at = 0
        for spec in specs:
            kind, config = spec.get("class_name"), spec.get("config")
            if not isinstance(kind, str) or not isinstance(config, dict | list):
                raise Damaged(f"layer {at}{inside}", f"is {spec!r:.40}")
            own = snake_case(kind)
            plain = config if isinstance(config, dict) else {}
            name = spec.get("name", plain.get("name", f"{own}_{at}"))
            if not isinstance(name, str):
                raise Damaged(f"layer {at}{inside}", f"has the name {name!r:.40}")
            slot = f"{own}_{used[own]}" if used[own] else own
            place = f"layer {at}{inside}, {name!r:.60} (keras {kind.split('>')[-1]:.60})"
            given = Given(place, (*path, Names(name, slot)), kind, plain, spec, self.source)
            used[own] += not given.operation
            yield given
            at += not (kind == "InputLayer" and model == "Sequential")

    def _graph(
        self, key: str, config: dict[str, Any], layers: list[Given], starts: list[Flow] | None
    ) -> dict[str, Flow]:
        """Return the outputs of a functional model."""
        sources, targets = (refs_of(config.get(f"{e}_layers"), key) for e in ("input", "output"))
        require(bool(sources) and bool(targets), key, "has no inputs, or no outputs")
        if starts is None:
            targets = self._selected(targets, key)
        named = {given.path[-1].name: given for given in layers}
        known = {ref.name for ref in sources.values()}
        calls = ordered(key, named, known, [ref.call for ref in targets.values()])
        flows = [Flow(Point(eps=self.eps), None, None)] if starts is None else starts
        if starts is None and len(sources) > 1:
            if self.chosen is not None:  # inputs that these outputs don't need
                sources = {k: ref for k, ref in sources.items() if ref.call in calls}
            flows = self._starts(sources, named)
        if len(flows) != len(sources):
            raise ConversionError(
                key, f"has {len(sources)} inputs, and is called with {len(flows)}"
            )
        done: dict[Key, list[Flow]] = {}
        for ref, flow in zip(sources.values(), flows, strict=True):
            if ref.name not in named:
                raise Damaged(key, f"layer {ref.name!r:.40} is called, and not there")
            done[ref.call] = self._layer(named[ref.name], Call([flow], {}))

        def made(ref: Ref) -> Flow:
            found = done.get(ref.call, [])
            if ref.output >= len(found):
                raise ConversionError(
                    named[ref.name].place,
                    f"is connected to {list(ref)!r:.60}, and has {len(found)} outputs here",
                )
            return found[ref.output]

        for at, call in calls.items():
            if at not in done and call is not None:
                done[at] = self._layer(named[at[0]], call.filled(made))
        return {name: made(ref) for name, ref in targets.items()}

    def _starts(self, sources: dict[str, Ref], named: dict[str, Given]) -> list[Flow]:
        """Return the inputs of a model that has several: all of them are one row."""
        widths = []
        for ref in sources.values():
            config = named[ref.name].config if ref.name in named else {}
            shape: Any = config.get("batch_shape", config.get("batch_input_shape"))
            if not isinstance(shape, list | tuple) or len(shape) != 2 or type(shape[1]) is not int:
                raise ConversionError(
                    f"input {ref.name!r:.60}", f"has the shape {shape}; several inputs are rows"
                )
            widths.append(shape[1])
        self.inputs = _ends(list(sources), widths, "input")
        self.shape = (None, sum(widths))
        whole = Point(eps=self.eps, features=sum(widths))
        cuts = [[Cut(end - n, end)] for n, end in zip(widths, accumulate(widths), strict=True)]
        return [
            Flow(whole.then(cut[: len(widths) - 1]), (None, width), (None, width))
            for width, cut in zip(widths, cuts, strict=True)
        ]

    def _layer(self, given: Given, call: Call) -> list[Flow]:
        """Return what one call of a layer makes of its inputs."""
        if is_custom(given.spec):
            raise given.refusal(
                "is a class of its own, and code in a model is never run; write it with layers of "
                "Keras, or convert the layers around it as networks of their own"
            )
        if given.kind in FUNCTIONS:
            given, call = as_operation(given, call)
        if call.options:
            name, value = next(iter(call.options.items()))
            raise given.refusal(
                f"is called with {name}={value!r:.40}; what a call may change is not known here: "
                "leave it out"
            )
        self._check_rows(given, call)
        joined = _sound(given, operation, given, call)
        if joined is not None:
            self.written_out |= not was_always_read(given, call)
            if isinstance(joined[0].point.step, Dense):
                self.dtypes.setdefault(call.dtype, given.place)
            return joined
        flows = call.args[0] if len(call.args) == 1 else call.args
        flows = list(flows.values()) if isinstance(flows, dict) else flows
        flows = [flows] if isinstance(flows, Flow) else flows
        if not isinstance(flows, list) or not all(isinstance(f, Flow) for f in flows):
            raise given.refusal(f"is called with more than arrays; {advice(given.kind)}")
        if given.kind in MODELS:
            return list(self.model(given.spec, given.path, flows).values())
        if len(flows) != 1:
            raise given.refusal(f"has {len(flows)} inputs; {advice(given.kind)}")
        if given.kind in _AROUND:
            return [self._around(given, flows[0])]
        return [self._plain(given, flows[0])]

    def _check_rows(self, given: Given, call: Call) -> None:
        """Refuse to go on with arrays without an axis of features."""
        shapes = [value.shape for value in flat(call.args) if isinstance(value, Flow)]
        if given.kind != "ExpandDims" and any(s is not None and len(s) < 2 for s in shapes):
            raise given.refusal(
                "gets one number a sample, without an axis; in a network that is a row of one: take "
                "the axis away at the end, or not at all"
            )

    def _plain(self, given: Given, flow: Flow) -> Flow:
        """Return what a layer of the table makes of its input."""
        declared = given.config.get("batch_shape", given.config.get("batch_input_shape"))
        if declared is not None:
            shape = _shape(declared, given)
            flow = flow._replace(shape=shape, held=shape if flow.held is None else flow.held)
        if flow.point.parent is None and self.shape is None:
            self.shape = flow.shape
        if given.kind == "Masking":
            self.masked = True
        if given.kind == "Softmax" and self.masked and not given.operation:
            raise given.refusal("leaves out what a Masking layer before it masks; fastlayer can't")
        made = _sound(given, steps, given._replace(shape=flow.shape))
        if given.kind == "InputLayer":
            told = given.config.get("dtype")
            self.input_dtype = told if told == "float64" else self.input_dtype
        elif (dtype := given.dtype()) is not None and not any(isinstance(s, Dense) for s in made):
            self.dtypes.setdefault(dtype, given.place)
        for step in made:
            if isinstance(step, Flat):
                flow = flattened(flow, step)
            elif isinstance(step, Dense):
                self.dtypes.setdefault(step.weight.dtype.name, given.place)
                flow = product(given, flow, step)
            else:
                flow = flow.after(flow.point.then([step]))
        return flow

    def _around(self, given: Given, flow: Flow) -> Flow:
        """Return what a layer inside of another one makes of its input, for each step of a series."""
        require(len(given.path) <= _DEEPEST, given.place, "has layers too deep inside each other")
        spec = as_dict(given.config.get("layer"), given.place)
        (inner,) = self._layers([spec], given.kind, given.path)
        names = inner.path[-1]._replace(slot="layer", folder="")
        inner = inner._replace(place=given.place, path=(*given.path, names))
        shape = flow.shape
        if given.kind == "TimeDistributed" and shape is not None:
            if len(shape) < 3:
                raise Damaged(given.place, f"is for series, and its input has the shape {shape}")
            shape = (shape[0], *shape[2:])
        (made,) = self._layer(inner, Call([flow._replace(shape=shape)], {}))
        between = made.point.since(flow.point) or ()
        if _mixes_axes(between):
            raise given.refusal(
                f"is around {inner.kind}, which does not work on the last axis alone"
            )
        width = made.shape[-1] if made.shape else None
        return flow.after(made.point, width)


def _mixes_axes(made: Iterable[Any]) -> bool:
    """Whether steps look at other axes than the last one."""
    return any(
        isinstance(step, Flat | OneRow)
        or (isinstance(step, Join) and any(map(_mixes_axes, step.branches)))
        for step in made
    )


def _sound(given: Given, make: Callable[..., Made], *args: Any) -> Made:
    """Return what is made of a layer; numbers that can't be are a damaged file."""
    try:
        return make(*args)
    except (ConversionError, Damaged):
        raise
    except (TypeError, ValueError) as error:  # a negative epsilon, a slope of infinity
        raise Damaged(given.place, str(error)) from error


def _shape(value: Any, given: Given) -> Shape:
    known = isinstance(value, list | tuple) and all(
        d is None or (type(d) is int and 0 <= d < 1 << 40) for d in value
    )
    given.require(known, f"has the input shape {value!r:.40}")
    return tuple(value)


def _beside(ends: dict[str, Flow], name: str, single: bool) -> tuple[Point, Ends]:
    """Return outputs as one row, and what they are of it."""
    if single and len(ends) == 1:
        (flow,) = ends.values()
        return flow.point, Ends()
    shapes = [end.held for end in ends.values()]
    widths = [shape[-1] for shape in shapes if shape is not None and len(shape) == 2]
    if len(widths) < len(shapes) or None in widths:
        told = ", ".join(f"{key!r:.40}: {shape}" for key, shape in zip(ends, shapes, strict=True))
        raise ConversionError(name, f"has outputs of shapes {told}; several outputs are rows")
    point = join("concat", [end.point for end in ends.values()], name)
    return point, _ends(list(ends), widths, "output")


def _ends(names: list[str], widths: list[Any], what: str) -> Ends:
    try:
        return Ends.of(dict(zip(names, widths, strict=True)), what)
    except ValueError as error:  # far too many, or no names
        raise ConversionError("config", str(error)) from error

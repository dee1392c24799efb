"""A model's configuration, as Keras writes it for Sequential and functional models, as a graph.

The configuration is plain data: from a live model, or from the JSON in a file, where it is not to be
trusted. No name in it chooses what code runs beyond the tables of `layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.arrays import float_dtype
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Draft, Flat, Point, add
from fastlayer.convert._keras.calls import inputs, only, with_number
from fastlayer.convert._keras.given import (
    Given,
    Rules,
    Where,
    as_dict,
    is_custom,
    policy,
    snake_case,
)
from fastlayer.convert._keras.layers import steps
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.convert._keras.calls import Key

    Shape = tuple[int | None, ...] | None

# Far above any real model; more than that is a hostile file.
_MOST_LAYERS = 2000
_DEEPEST = 16
_SUMS = {"Add": 1.0, "Subtract": -1.0}


class Flow(NamedTuple):
    """A point of the graph, and the shape of the array there as far as it is known."""

    point: Point
    shape: Shape


class Model(NamedTuple):
    """A model, or one inside of another: its name, layers and inputs' and outputs' nodes."""

    names: tuple[str, ...]
    slots: tuple[str, ...]
    kind: str
    layers: list[dict[str, Any]]
    inputs: Any
    outputs: Any


def from_config(spec: Any, rules: Rules, source: str) -> Draft:
    """Return the draft of a model's network.

    Parameters
    ----------
    spec : dict
        ``{"class_name": ..., "config": ...}``.
    rules : Rules
        Where the weights are, and what the version of Keras decides.
    source : str
        The model, for messages.

    Raises
    ------
    ConversionError
        A layer, or a way to connect layers, without an exact counterpart.
    Damaged
        A configuration that no Keras writes.
    """
    builder = _Builder(rules)
    start = Point()
    end = builder.model(_model(spec, (), ()), Flow(start, None))
    if len(builder.dtypes) > 1:
        (first, a), (second, b) = list(builder.dtypes.items())[:2]
        raise ConversionError(b, f"is {second}, but {a} is {first}; a network has one dtype")
    shape = builder.shape
    features = shape[-1] if shape else None
    dtype = float_dtype(next(iter(builder.dtypes), "float32"))
    return Draft(end.point, dtype, source, features)


def _model(spec: Any, names: tuple[str, ...], slots: tuple[str, ...]) -> Model:
    key = f"model {names[-1]!r:.60}" if names else "config"
    spec = as_dict(spec, key)
    kind, config = spec.get("class_name"), spec.get("config")
    if is_custom(spec) or kind not in ("Sequential", "Functional", "Model"):
        raise ConversionError(
            key if names else f"model (keras {kind!s:.60})",
            "is neither Sequential nor functional: what it does is Python code, which is not in "
            "its configuration; convert the Sequential parts of it one by one",
        )
    if isinstance(config, list):  # Sequential before Keras 2.2.3
        config = {"layers": config}
    config = as_dict(config, key)
    layers = config.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS or len(names) > _DEEPEST:
        raise Damaged(key, "has no layers, too many, or models too deep inside each other")
    inputs, outputs = config.get("input_layers"), config.get("output_layers")
    return Model(names, slots, kind, [as_dict(s, key) for s in layers], inputs, outputs)


class _Builder:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.dtypes: dict[str, str] = {}  # and the first place of each
        self.shape: Shape = None
        self.count = 0

    def model(self, model: Model, start: Flow) -> Flow:
        layers = list(self._layers(model))
        self.count += len(layers)
        if self.count > _MOST_LAYERS:
            raise Damaged("config", f"has more than {_MOST_LAYERS} layers")
        if model.kind == "Sequential":
            flow = start
            for spec, given in layers:
                flow = self._layer(spec, given, [flow])
            return flow
        return self._graph(model, layers, start)

    def _layers(self, model: Model) -> Iterator[tuple[dict[str, Any], Given]]:
        """Yield the layers of a model with their names, and the names of their weights."""
        used: dict[str, int] = {}
        inside = f" of {model.names[-1]!r:.60}" if model.names else ""
        at = 0
        for spec in model.layers:
            kind = spec.get("class_name")
            config = spec.get("config")
            if not isinstance(kind, str) or not isinstance(config, dict | list):
                raise Damaged(f"layer {at}{inside}", f"is {spec!r:.40}")
            plain = config if isinstance(config, dict) else {}
            name = spec.get("name", plain.get("name", f"{snake_case(kind)}_{at}"))
            if not isinstance(name, str):
                raise Damaged(f"layer {at}{inside}", f"has the name {name!r:.40}")
            slot = snake_case(kind)
            if not _is_operation(spec):
                used[slot] = used.get(slot, -1) + 1
                slot += f"_{used[slot]}" if used[slot] else ""
            place = f"layer {at}{inside}, {name!r:.60} (keras {kind.split('>')[-1]:.60})"
            where = Where(place, (*model.names, name), (*model.slots, slot))
            at += not (kind == "InputLayer" and model.kind == "Sequential")
            yield spec, Given(where, kind, plain, None)

    def _layer(self, spec: dict[str, Any], given: Given, inputs: list[Flow]) -> Flow:
        """Return what one call of a layer makes of its inputs."""
        place = given.where.place
        if is_custom(spec):
            raise ConversionError(
                place,
                "is a class of its own, and code in a model is never run; write it with layers of "
                "Keras, or convert the layers around it as networks of their own",
            )
        if given.kind in _SUMS and len(inputs) > 1:
            return self._sum(given, inputs)
        if len(inputs) != 1:
            raise ConversionError(
                place,
                f"has {len(inputs)} inputs; fastlayer adds the input of a branch to its output, as "
                "Residual, and joins nothing else",
            )
        flow = inputs[0]
        if given.kind in ("Sequential", "Functional", "Model"):
            return self.model(_model(spec, given.where.names, given.where.slots), flow)
        declared = given.config.get("batch_shape", given.config.get("batch_input_shape"))
        shape = _shape(declared, place) if declared is not None else flow.shape
        if flow.point.parent is None and self.shape is None:
            self.shape = shape
        try:
            made = steps(given._replace(shape=shape), self.rules)
        except (ConversionError, Damaged):
            raise
        except (TypeError, ValueError) as error:  # a negative epsilon, a slope of infinity
            raise Damaged(place, str(error)) from error
        self._note_dtype(given, made)
        return Flow(flow.point.then(made), _shape_after(made, shape))

    def _sum(self, given: Given, inputs: list[Flow]) -> Flow:
        point = inputs[0].point
        for other in inputs[1:]:
            sign = _SUMS[given.kind]
            further = [] if sign == 1 else [Affine.of(sign)]
            point = add(point, other.point.then(further), given.where.place)
        return Flow(point, inputs[0].shape)

    def _note_dtype(self, given: Given, made: list[Any]) -> None:
        if given.kind == "InputLayer":
            return
        dtype = policy(given)
        for step in made:
            if isinstance(step, Dense):
                dtype = step.weight.dtype.name
        if dtype is not None:
            self.dtypes.setdefault(dtype, given.where.place)

    def _graph(self, model: Model, layers: list[tuple[dict[str, Any], Given]], start: Flow) -> Flow:
        """Return the output of a functional model: from it back to the input, without recursion."""
        key = f"model {model.names[-1]!r:.60}" if model.names else "config"
        table = {given.where.names[-1]: (spec, given) for spec, given in layers}
        source, target = (only(v, key) for v in (model.inputs, model.outputs))
        done: dict[Key, Flow] = {}
        waiting: list[Key] = [target]
        while waiting:
            name, node = at = waiting[-1]
            if at in done:
                waiting.pop()
                continue
            if name not in table:
                raise Damaged(key, f"layer {name!r:.40} is called, and not there")
            spec, given = table[name]
            if name == source[0]:
                done[at] = self._layer(spec, given, [start])
                continue
            tensors, numbers = inputs(spec, node, given.where.place)
            missing = [t for t in tensors if t not in done]
            if missing:
                waiting += missing
                if len(waiting) > 8 * _MOST_LAYERS:
                    raise Damaged(key, "its layers call each other in a circle")
                continue
            flows = [done[t] for t in tensors]
            if any(n is not None for n in numbers):
                done[at] = Flow(flows[0].point.then([with_number(given, numbers)]), flows[0].shape)
            else:
                done[at] = self._layer(spec, given, flows)
        return done[target]


def _is_operation(spec: dict[str, Any]) -> bool:
    """Whether this is a function of Keras that was called between layers; those have no weights."""
    module = spec.get("module")
    return isinstance(module, str) and module.startswith(("keras.src.ops", "keras.src.activations"))


def _shape(value: Any, place: str) -> Shape:
    if not isinstance(value, list | tuple) or not all(
        d is None or (type(d) is int and 0 <= d < 1 << 40) for d in value
    ):
        raise Damaged(place, f"has the input shape {value!r:.40}")
    return tuple(value)


def _shape_after(made: list[Any], shape: Shape) -> Shape:
    for step in made:
        if isinstance(step, Dense):
            shape = None if shape is None else (*shape[:-1], step.weight.shape[0])
        elif isinstance(step, Flat):
            shape = (None, step.width)
    return shape

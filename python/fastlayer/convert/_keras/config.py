"""A model's configuration, as Keras writes it for Sequential and functional models, as a graph.

The configuration is plain data: from a live model, or from the JSON in a file, where it is not to be
trusted. No name in it chooses what code runs beyond the tables of `layers`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.arrays import float_dtype
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Draft, Flat, Point, add
from fastlayer.convert._keras.layers import Given, Names, as_dict, is_custom, snake_case, steps
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.reading import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastlayer.convert._keras.layers import Path, Shape, Source

    Key = tuple[str, int]  # a layer's name, and the number of a call of it

# Far above any real model; more than that is a hostile file.
_MOST_LAYERS = 2000
_DEEPEST = 16
_MODELS = ("Sequential", "Functional", "Model")
_OPERATIONS = ("keras.src.ops", "keras.src.activations")
_SUMS = {"Add": 1.0, "Subtract": -1.0}
_PRODUCTS = ("Multiply", "Divide", "TrueDivide")


class Flow(NamedTuple):
    """A point of the graph, and the shape of the array there as far as it is known."""

    point: Point
    shape: Shape


def from_config(spec: Any, source: Source, name: str) -> Draft:
    """Return the draft of a model's network.

    Parameters
    ----------
    spec : dict
        ``{"class_name": ..., "config": ...}``.
    source : Source
        Where the weights are, and what the version of Keras decides.
    name : str
        The model, for messages.

    Raises
    ------
    ConversionError
        A layer, or a way to connect layers, without an exact counterpart.
    Damaged
        A configuration that no Keras writes.
    """
    walk = _Walk(source)
    end = walk.model(spec, (), Flow(Point(), None))
    if len(walk.dtypes) > 1:
        (first, a), (second, b) = list(walk.dtypes.items())[:2]
        raise ConversionError(b, f"is {second}, but {a} is {first}; a network has one dtype")
    dtype = float_dtype(next(iter(walk.dtypes), "float32"))
    return Draft(end.point, dtype, name, walk.shape[-1] if walk.shape else None)


class _Walk:
    """From the input of a model to its output, through the models inside of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.dtypes: dict[str, str] = {}  # and the first place of each
        self.shape: Shape = None  # of the input
        self.count = 0

    def model(self, spec: Any, path: Path, start: Flow) -> Flow:
        """Return the output of a model, given its input."""
        key = f"model {path[-1].name!r:.60}" if path else "config"
        spec = as_dict(spec, key)
        kind, config = spec.get("class_name"), spec.get("config")
        if is_custom(spec) or kind not in _MODELS:
            raise ConversionError(
                key if path else f"model (keras {kind!s:.60})",
                "is neither Sequential nor functional: what it does is Python code, which is not in "
                "its configuration; convert the Sequential parts of it one by one",
            )
        if isinstance(config, list):  # Sequential before Keras 2.2.3
            config = {"layers": config}
        config = as_dict(config, key)
        specs: Any = config.get("layers")
        fits = isinstance(specs, list) and len(specs) <= _MOST_LAYERS and len(path) <= _DEEPEST
        require(fits, key, "has no layers, too many, or models too deep inside each other")
        self.count += len(specs)
        require(self.count <= _MOST_LAYERS, "config", f"has more than {_MOST_LAYERS} layers")
        layers = list(self._layers([as_dict(s, key) for s in specs], kind, path))
        if kind != "Sequential":
            return self._graph(key, config, layers, start)
        flow = start
        for given in layers:
            flow = self._layer(given, [flow])
        return flow

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
            module = spec.get("module")
            # A function of Keras that was called between layers has no weights.
            operation = isinstance(module, str) and module.startswith(_OPERATIONS)
            used[own] += not operation
            place = f"layer {at}{inside}, {name!r:.60} (keras {kind.split('>')[-1]:.60})"
            yield Given(place, (*path, Names(name, slot)), kind, plain, spec, self.source)
            at += not (kind == "InputLayer" and model == "Sequential")

    def _graph(self, key: str, config: dict[str, Any], layers: list[Given], start: Flow) -> Flow:
        """Return the output of a functional model: from it back to the input, without recursion."""
        source, target = (_end(config.get(f"{end}_layers"), key) for end in ("input", "output"))
        named = {given.path[-1].name: given for given in layers}
        done: dict[Key, Flow] = {}
        waiting: list[Key] = [target]
        while waiting:
            name, node = at = waiting[-1]
            if at in done:
                waiting.pop()
                continue
            if name not in named:
                raise Damaged(key, f"layer {name!r:.40} is called, and not there")
            given = named[name]
            if name == source[0]:
                done[at] = self._layer(given, [start])
                continue
            inputs = _inputs(given, node)
            missing = [i for i in inputs if isinstance(i, tuple) and i not in done]
            waiting += missing
            forward = len(waiting) <= 8 * _MOST_LAYERS
            require(forward, key, "its layers call each other in a circle")
            if not missing:
                flows = [done[i] if isinstance(i, tuple) else i for i in inputs]
                done[at] = self._layer(given, flows)
        return done[target]

    def _layer(self, given: Given, inputs: Sequence[Flow | float]) -> Flow:
        """Return what one call of a layer makes of its inputs."""
        if is_custom(given.spec):
            raise given.refusal(
                "is a class of its own, and code in a model is never run; write it with layers of "
                "Keras, or convert the layers around it as networks of their own"
            )
        if len(inputs) != 1 or not isinstance(inputs[0], Flow):
            return _combined(given, inputs)
        flow = inputs[0]
        if given.kind in _MODELS:
            return self.model(given.spec, given.path, flow)
        declared = given.config.get("batch_shape", given.config.get("batch_input_shape"))
        shape = flow.shape if declared is None else _shape(declared, given)
        if flow.point.parent is None and self.shape is None:
            self.shape = shape
        try:
            made = steps(given._replace(shape=shape))
        except (ConversionError, Damaged):
            raise
        except (TypeError, ValueError) as error:  # a negative epsilon, a slope of infinity
            raise Damaged(given.place, str(error)) from error
        dtype = None if given.kind == "InputLayer" else given.dtype()
        for step in made:
            if isinstance(step, Dense):
                dtype = step.weight.dtype.name
                shape = None if shape is None else (*shape[:-1], step.weight.shape[0])
            elif isinstance(step, Flat):
                shape = (None, step.width)
        if dtype is not None:
            self.dtypes.setdefault(dtype, given.place)
        return Flow(flow.point.then(made), shape)


def _shape(value: Any, given: Given) -> Shape:
    known = isinstance(value, list | tuple) and all(
        d is None or (type(d) is int and 0 <= d < 1 << 40) for d in value
    )
    given.require(known, f"has the input shape {value!r:.40}")
    return tuple(value)


def _end(value: Any, key: str) -> Key:
    """Return the one input or output of a model: ["name", 0, 0], or that in a list or dictionary."""
    if isinstance(value, dict):
        if len(value) != 1:
            names = ", ".join(f"{name!r:.40}" for name in list(value)[:8]) or "none"
            raise ConversionError(
                key, f"has {len(value)} inputs or outputs, {names}; a network has one"
            )
        value = next(iter(value.values()))
    if isinstance(value, list) and value and isinstance(value[0], list):
        if len(value) != 1:
            raise ConversionError(key, f"has {len(value)} inputs or outputs; a network has one")
        value = value[0]
    return _key(value, key)


def _key(value: Any, place: str) -> Key:
    match value:
        case [str(name), int(node), 0, *_] if type(node) is int:
            return name, node
    raise Damaged(place, f"is connected to {value!r:.40}")


def _inputs(given: Given, node: int) -> Sequence[Key | float]:
    """Return what a layer is called with, in order: outputs of other calls, and numbers."""
    calls: Any = given.spec.get("inbound_nodes")
    known = isinstance(calls, list) and 0 <= node < len(calls)
    given.require(known, f"has no call number {node}")
    call = calls[node]
    if isinstance(call, dict):  # Keras 3
        options = call.get("kwargs")
        inputs = [_input(item, given) for item in _flat(call.get("args"))]
    elif isinstance(call, list):  # Keras 2: [name, node, tensor, options] for each array
        entries = [call] if call and isinstance(call[0], str) else call
        inputs = [_key(entry, given.place) for entry in entries]
        options = entries[-1][3] if entries and len(entries[-1]) > 3 else {}
    else:
        inputs, options = [], call
    if not isinstance(options, dict):
        raise Damaged(given.place, f"is called with {options!r:.40}")
    if options.get("training"):
        raise given.refusal(
            "is called with training=True, which makes its result random; leave that out"
        )
    return inputs


def _input(item: Any, given: Given) -> Key | float:
    if isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
        return _key(as_dict(item.get("config"), given.place).get("keras_history"), given.place)
    if isinstance(item, int | float) and not isinstance(item, bool):
        return float(item) if abs(item) < 1e300 else float("inf")
    raise given.refusal(f"is called with {item!r:.60}, which is not an array or number")


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [x for v in value for x in (v if isinstance(v, list | tuple) else [v])]
    return [value]


def _combined(given: Given, inputs: Sequence[Flow | float]) -> Flow:
    """Return a sum or difference of arrays, or what an array and a number give, as in ``x * 2``."""
    kind, sign = given.kind, _SUMS.get(given.kind)
    flows = [i for i in inputs if isinstance(i, Flow)]
    numbers = [i for i in inputs if not isinstance(i, Flow)]
    if not numbers:
        if sign is None or not flows:
            raise given.refusal(
                f"has {len(flows)} inputs; fastlayer adds the input of a branch to its output, as "
                "Residual, and joins nothing else"
            )
        point = flows[0].point
        for other in flows[1:]:
            point = add(point, other.point, given.place, sign)
        return Flow(point, flows[0].shape)
    if (sign is None and kind not in _PRODUCTS) or len(flows) != 1 or len(numbers) != 1:
        raise given.refusal("combines its input with numbers in a way that is not known")
    flow, c, first = flows[0], numbers[0], inputs[1] is flows[0]
    if sign is not None:
        step = Affine.of(sign, c) if first else Affine.of(1.0, sign * c)
    elif kind == "Multiply":
        step = Affine.of(c)
    elif first or c == 0:
        raise given.refusal("divides a number by its input, or its input by zero")
    else:
        step = Affine.of(1 / c)
    return Flow(flow.point.then([step]), flow.shape)

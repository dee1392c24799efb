"""The readers of model files as a fuzzer sees them: how they are called, and sound files to start from."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import mutators
import numpy as np
from hostile_corpus import read_agent, read_state_dict
from keras_files import dense, layer, sequential, weights_file, write_h5, write_keras
from model_files import (
    agent,
    edit_document,
    every_part,
    first_network,
    held,
    legacy,
    members,
    npy,
    number,
    pickled,
    pt,
    record,
    script,
    storage,
    tensor,
    word,
    zipped,
)

import fastlayer as fl

Seeds = dict[str, bytes]


def _as_it_is(data: bytes) -> bytes:
    return data


class Reader(NamedTuple):
    """What is fuzzed: bytes become a file with this suffix, and every door is to take or refuse it.

    `wrap` makes a whole file of bytes that are a part of one. `memory` is how many times the size of a
    file may be taken beside the 64 MB, and `share` how many of the runs of all readers it gets.
    `beside` are files in the same folder, which may be opened too.
    """

    suffix: str
    doors: tuple[Callable[[str], fl.Network], ...]
    seeds: Callable[[], Seeds]
    mutate: mutators.Mutate
    wrap: Callable[[bytes], bytes] = _as_it_is
    memory: int = 1
    share: int = 8
    beside: Seeds = {}  # noqa: RUF012  # never changed


@contextmanager
def _file(suffix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, f"model{suffix}")


def _written(suffix: str, write: Callable[[Path], Any]) -> bytes:
    with _file(suffix) as path:
        write(path)
        return path.read_bytes()


# ----------------------------------------------------------------------------- fastlayer's own


def _networks() -> dict[str, fl.Network]:
    """Small networks that have, together, all that a file can hold."""
    one = fl.Layer.from_arrays(np.ones((2, 3), np.float32), [0.5, -0.5], "relu")
    two = fl.Layer.from_arrays(np.ones((2, 3), np.float32))
    heads = fl.Concat([one, two])
    gate = fl.Multiply([[fl.Slice(0, 2), "sigmoid"], fl.Slice(2, 4)])
    return {
        "layer": fl.Network([one]),
        "parts": every_part(np.float32),
        "first": first_network(),
        "branches": fl.Network([heads, fl.Add([gate, fl.Slice(1, 3)])]),
        "ends": fl.Network([heads], inputs={"x": 1, "u": 2}, outputs={"mean": 2, "value": 2}),
        "any": fl.Network([fl.Flatten(), "softplus", fl.Activation("hardtanh", max_val=np.inf)]),
    }


def _saved(suffix: str) -> Seeds:
    return {name: _written(suffix, net.save) for name, net in _networks().items()}


def _map(path: str) -> fl.Network:
    return fl.load(path, mmap=True)


def _whole() -> dict[str, bytes]:
    """The members of a file whose network has a part of every kind."""
    layers = [*every_part(np.float32), *_networks()["branches"]]
    return members(_written(".npz", fl.Network(layers).save))


def _documents() -> Seeds:
    whole = _whole()

    def text(change: Callable[[dict[str, Any]], Any]) -> bytes:
        return np.load(io.BytesIO(edit_document(whole, change)["fastlayer.npy"])).tobytes()

    bare = [
        {"type": "Add", "branches": [{"layers": []}, {"layers": [{"type": "Slice", "begin": 0, "end": 2}]}]},
        {"type": "LayerNorm", "features": 2, "eps": 1e-3, "arrays": []},
        {"type": "Activation", "name": "hardtanh", "parameters": {"min_val": "-Infinity", "max_val": 1}},
    ]  # fmt: skip
    return {
        "whole": text(lambda d: None),
        "start": text(lambda d: d.update(layers=d["layers"][:2])),
        "labels": text(_labels),
        "inputs": text(
            lambda d: d.update(version=2, layers=d["layers"][:2], inputs=[["x", 4], ["u", 8]])
        ),
        "bare": text(lambda d: d.update(layers=bare)),
    }


@cache
def _arrays() -> dict[str, bytes]:
    return _whole()


def _with_document(text: bytes) -> bytes:
    return zipped({**_arrays(), "fastlayer.npy": npy(np.frombuffer(text, np.uint8))})


def _labels(document: dict[str, Any]) -> None:
    outputs = [["label", 2, {"labels": ["no", "yes"], "keepdims": False}]]
    document.update(version=2, traits=["one row"], outputs=outputs)


def _npz() -> Seeds:
    seeds = _saved(".npz")
    labelled = edit_document(members(seeds["branches"]), _labels)
    return {**seeds, "labels": zipped(labelled)}


# ----------------------------------------------------------------------------- PyTorch

_STATE = {
    "0.weight": np.ones((4, 3)), "0.bias": np.zeros(4), "2.weight": np.ones((1, 4)), "2.bias": [0.5],
}  # fmt: skip
_VIEW = tensor(storage("0", 12), 0, (3, 4), (4, 1))
_BYTES = {"0": np.ones(12, "<f4").tobytes()}


def _keyed(path: str) -> fl.Network:
    return fl.from_state_dict(path, activation="relu", key="model")


def _pickles() -> Seeds:
    half = tensor(storage("0", 24, "torch HalfStorage"), 0, (6, 4), (1, 6))
    wide = tensor(storage("0", 6, "torch DoubleStorage"), 2, (1, 4), (4, 1))
    brain = tensor(storage("0", 24, "torch BFloat16Storage"), 0, (4, 6), (6, 1))
    frames = b"\x80\x04\x95\x0a\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94N\x8c\x01b\x94\x8f(K\1\x90u."
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n(" + _VIEW + b"\x88ccollections\nOrderedDict\n)RtR"
    )
    return {
        "dense": pickled({"0.weight": _VIEW}),
        "two": pickled(
            {"0.weight": _VIEW, "2.weight": tensor(storage("0", 12), 3, (2, 3), (3, 1))}
        ),
        "checkpoint": pickled({"model": pickled({"0.weight": _VIEW})[2:-1], "epoch": number(3)}),
        "types": pickled({"0.weight": half, "2.weight": brain}),
        "double": pickled({"a.weight": wide}),
        "parameter": pickled({"0.weight": parameter}),
        "frames": frames,
        "object": pickled({"0.weight": b"c__main__\nNet\n)\x81}(" + word("a") + b"K\1ub"}),
    }


def _with_storage(text: bytes) -> bytes:
    return pt(text, _BYTES)


def _pt() -> Seeds:
    small = {name: _with_storage(text) for name, text in _pickles().items()}
    views, data = held(_STATE)
    checkpoint = pt(pickled({"model": pickled(views)[2:-1], "optimizer": b"]"}), data)
    return {**small, "state": pt(pickled(views), data), "checkpoint": checkpoint}


def _legacy() -> Seeds:
    views, data = held(_STATE)
    return {
        "state": legacy(pickled(views), data),
        "one": legacy(pickled({"0.weight": _VIEW}), _BYTES),
    }


def _scripts() -> Seeds:
    def tree(attributes: dict[str, bytes]) -> bytes:
        return b"\x80\x02" + record("__torch__ N", attributes) + b"."

    views = {"0": _VIEW, "2": tensor(storage("0", 12), 0, (4, 3), (1, 4))}
    layers = {
        name: record("__torch__ Linear", {"weight": view, "training": b"\x89"})
        for name, view in views.items()
    }
    small = {"one": {"weight": _VIEW}, "layers": layers}
    files = {name: pt(tree(held), _BYTES, **{"constants.pkl": b""}) for name, held in small.items()}
    return {**files, "code": script(record("__torch__ N", {"weight": _VIEW}), _BYTES)}


# ----------------------------------------------------------------------------- stable-baselines3

_POLICY = {
    "mlp_extractor.policy_net.0.weight": np.ones((3, 2)), "mlp_extractor.policy_net.0.bias": np.ones(3),
    "action_net.weight": np.ones((1, 3)), "action_net.bias": np.ones(1),
}  # fmt: skip
_SAC = {
    "actor.latent_pi.0.weight": np.ones((3, 2)), "actor.latent_pi.0.bias": np.ones(3),
    "actor.mu.0.weight": np.ones((1, 3)), "actor.mu.0.bias": np.ones(1),
    "critic.qf0.0.weight": np.ones((1, 3)), "critic.qf0.0.bias": np.ones(1),
}  # fmt: skip


def _critic(path: str) -> fl.Network:
    return fl.load(path, network="critic")


def _agent_weights(path: str) -> fl.Network:
    return fl.from_state_dict(path, network="q_net", activation="tanh")


def _agents() -> Seeds:
    def told(policy: str, shape: list[int], **options: Any) -> dict[str, Any]:
        space = {
            ":type:": "<class 'gymnasium.spaces.box.Box'>",
            "_shape": shape,
            "dtype": "float32",
        }
        given = {"policy_class": {"__module__": f"stable_baselines3.{policy}.policies"}}
        return {**given, "observation_space": space, **options}

    relu = "<class 'torch.nn.modules.activation.ReLU'>"
    views, data = held(_POLICY)
    old = legacy(pickled(views), data)
    noisy = told("sac", [2], use_sde=True, policy_kwargs={"clip_mean": 2.0})
    queries = {"q_net.q_net.0.weight": np.ones((3, 2)), "q_net.q_net.0.bias": np.ones(3)}
    return {
        "actor": agent(_POLICY, **told("common", [2])),
        "relu": agent(_POLICY, **told("common", [1, 2], policy_kwargs={"activation_fn": relu})),
        "old": agent(old, **told("common", [2])),
        "sac": agent(_SAC, **noisy),
        "dqn": agent(queries, **told("dqn", [2])),
        "critic": agent({"value_net.weight": np.ones((1, 2))}, **told("common", [2])),
    }


# ----------------------------------------------------------------------------- Keras

_KERNEL, _BIAS = np.ones((3, 2), np.float32), np.ones(2, np.float32)
_TWO = np.linspace(0.5, 1, 2, dtype=np.float32)


def _functional(*layers: tuple[dict[str, Any], list[str]], inputs: list[str], output: str) -> Any:
    """A model as Keras 3 writes it: layers, and what they are called with."""

    def tensor(name: str) -> dict[str, Any]:
        return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}

    specs: list[Any] = [
        {**layer("InputLayer", name, batch_shape=[None, 3]), "name": name, "inbound_nodes": []}
        for name in inputs
    ]
    for spec, names in layers:
        given: list[Any] = [tensor(name) for name in names]
        arguments = [given] if len(given) > 1 else given
        node = {"args": arguments, "kwargs": {}}
        specs.append({**spec, "name": spec["config"]["name"], "inbound_nodes": [node]})
    starts = [[name, 0, 0] for name in inputs]
    ends = {"input_layers": starts, "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": specs, **ends}}


def _configs() -> dict[str, Any]:
    """Configurations whose weights, where they have any, are those of one layer of each kind."""
    first = dense("dense", 2, "relu", batch_input_shape=[None, 3])
    plain = layer("InputLayer", "x", batch_shape=[None, 3])
    behind = [
        layer("LeakyReLU", "leaky", negative_slope=0.25), layer("ReLU", "r", max_value=6.0),
        layer("PReLU", "p_re_lu"), layer("Rescaling", "scale", scale=0.5, offset=[1.0, 2.0]),
        layer("Clip", "clip", min_value=-1, max_value=1), layer("Dropout", "drop", rate=0.5),
    ]  # fmt: skip
    norms = [
        layer("BatchNormalization", "batch_normalization", axis=[-1], epsilon=0.01),
        layer("LayerNormalization", "layer_normalization", axis=[-1], epsilon=0.01),
    ]
    shapes = [
        layer("Reshape", "rows", target_shape=[1, 2]),
        layer("Flatten", "flat"),
        layer("Softmax", "s"),
    ]
    einsum = layer(
        "EinsumDense",
        "dense",
        equation="ab,bc->ac",
        output_shape=2,
        bias_axes="c",
        activation="gelu",
    )
    inner = layer("TimeDistributed", "dense", layer=dense("dense", 2))
    joined = _functional(
        (dense("dense", 2, "tanh"), ["x"]), (layer("Concatenate", "both", axis=-1), ["dense", "u"]),
        (layer("Add", "sum"), ["both", "both"]), inputs=["x", "u"], output="sum",
    )  # fmt: skip
    operation = {**layer("Multiply", "times"), "module": "keras.src.ops.numpy"}
    gated = _functional((operation, ["x", "x"]), inputs=["x"], output="times")
    return {
        "dense": sequential(first),
        "activations": sequential(first, *behind),
        "norms": sequential(first, *norms),
        "shapes": sequential(first, *shapes),
        "einsum": sequential(plain, einsum),
        "distributed": sequential(layer("InputLayer", "x", batch_shape=[None, 5, 3]), inner),
        "nested": sequential(plain, {**sequential(first), "name": "inner"}),
        "joined": joined,
        "operation": gated,
    }


@cache
def _weights() -> bytes:
    slots = {
        "dense": [_KERNEL, _BIAS], "einsum_dense": [_KERNEL, _BIAS], "p_re_lu": [_TWO], "batch_normalization": [_TWO] * 4,
        "layer_normalization": [_TWO] * 2, "time_distributed/layer": [_KERNEL, _BIAS],
        "sequential/layers/dense": [_KERNEL, _BIAS],
    }  # fmt: skip
    return weights_file(slots)


def _with_weights(config: bytes) -> bytes:
    return _written(".keras", lambda path: write_keras(path, config, _weights()))


def _config_texts() -> Seeds:
    return {name: json.dumps(config).encode() for name, config in _configs().items()}


def _keras() -> Seeds:
    small = weights_file({"dense": [_KERNEL, _BIAS]})
    configs = _configs()
    chosen = {name: configs[name] for name in ("dense", "shapes", "joined")}
    return {
        n: _written(".keras", lambda p, c=c: write_keras(p, c, small)) for n, c in chosen.items()
    }


_NAMED = {"dense": {"kernel": _KERNEL, "bias": _BIAS}}


def _h5() -> Seeds:
    configs = _configs()
    chosen = {name: configs[name] for name in ("dense", "shapes", "joined")}
    return {n: _written(".h5", lambda p, c=c: write_h5(p, c, _NAMED)) for n, c in chosen.items()}


def _beside(path: str) -> fl.Network:
    """Weights alone; that a file has more is an error of the caller, by a message of its own."""
    try:
        return fl.load(path, config=_configs()["dense"])
    except ValueError as error:
        if type(error) is ValueError and "a configuration of its own" in str(error):
            raise fl.ConversionError(path, str(error)) from error
        raise


def _alone() -> Seeds:
    def old(path: Path) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"dense"]
            group = file.create_group("dense")
            group.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
            group["dense/kernel:0"], group["dense/bias:0"] = _KERNEL, _BIAS

    return {
        "layers": weights_file({"dense": [_KERNEL, _BIAS]}),
        "names": _written(".h5", old),
        "checkpoint": weights_file({"dense": [_KERNEL, _BIAS]}, "_layer_checkpoint_dependencies"),
    }


# ----------------------------------------------------------------------------- ONNX


def _f32(value: float) -> Any:
    return np.array(value, np.float32)


_ONNX = {
    "dense": ("y = Gemm<transB=1, alpha=0.5>(x, w, b)", {"w": (3, 4), "b": (3,)}),
    "layers": ("h = MatMul(x, w)\na = Add(h, b)\nr = Relu(a)\ny = MatMul(r, v)", {"w": (4, 3), "b": (3,), "v": (3, 2)}),
    "norm": ("h = MatMul(x, w)\ny = LayerNormalization<axis=-1>(h, g, g)", {"w": (4, 3), "g": (3,)}),
    "batch norm": ("h = MatMul(x, w)\ny = BatchNormalization(h, s, s, m, v)", {"w": (4, 2), "s": (2,), "m": (2,), "v": np.ones(2, np.float32)}),
    "gelu": ("s = Mul(x, c)\ne = Erf(s)\np = Add(e, o)\nm = Mul(x, p)\ny = Mul(m, k)", {"c": _f32(0.5**0.5), "o": _f32(1), "k": _f32(0.5)}),
    "swish": ("s = Sigmoid(x)\ny = Mul(x, s)", {}),
    "softmax": ("m = ReduceMax<axes=[1], keepdims=1>(x)\nd = Sub(x, m)\ne = Exp(d)\ns = ReduceSum(e, i)\ny = Div(e, s)", {"i": np.array([1])}),
    "where": ("c = Greater(x, z)\nn = Mul(x, a)\ny = Where(c, x, n)", {"z": _f32(0), "a": _f32(0.25)}),
    "clip": ("h = Clip(x, a, b)\ny = Abs(h)", {"a": _f32(-1), "b": _f32(1)}),
    "branches": ("a, b = Split<axis=1>(x, s)\nt = Tanh(a)\ng = Sigmoid(b)\np = Mul(t, g)\ny = Concat<axis=1>(p, x)", {"s": np.array([2, 2])}),
    "slices": ("a = Slice(x, i, j, k)\nb = Gather<axis=1>(x, o)\ny = Add(a, b)", {"i": np.array([0]), "j": np.array([2]), "k": np.array([1]), "o": np.array([3, 1])}),
    "shapes": ("r = Reshape(x, s)\nu = Unsqueeze(r, i)\nq = Squeeze(u, i)\nf = Flatten(q)\ny = MatMul(f, w)", {"s": np.array([-1, 4]), "i": np.array([1]), "w": (4, 2)}),
    "constants": ("c = Constant<value_float=2.0>()\nt = Transpose(w)\nh = MatMul(x, t)\ny = Div(h, c)", {"w": (3, 4)}),
    "labels": ("h = MatMul(x, w)\ny = ArgMax<axis=1, keepdims=0>(h)", {"w": (4, 3)}),
    "einsum": ('h = Einsum<equation="bd,de->be">(x, w)\ny = PRelu(h, s)', {"w": (4, 3), "s": (3,)}),
    "quantized": ("w = DequantizeLinear(q, s)\ny = MatMul(x, w)", {"q": np.ones((4, 2), np.int8), "s": _f32(0.5)}),
}  # fmt: skip


def _onnx() -> Seeds:
    from onnx_models import make

    models = {name: make(text, **constants) for name, (text, constants) in _ONNX.items()}
    outside = make("y = MatMul(x, w)", w=(4, 3))
    (held,) = outside.graph.initializer
    held.ClearField("raw_data")
    held.data_location = held.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "16", "length": "48"}.items():
        held.external_data.add(key=key, value=value)
    models["outside"] = outside
    return {name: model.SerializeToString() for name, model in models.items()}


READERS = {
    "npz": Reader(".npz", (fl.load,), _npz, mutators.archive),
    "document": Reader(".npz", (fl.load,), _documents, mutators.document, _with_document),
    "safetensors": Reader(
        ".safetensors", (fl.load, _map, read_state_dict), partial(_saved, ".safetensors"), mutators.safetensors,
        share=12,
    ),
    "pt": Reader(".pt", (read_state_dict, _keyed), _pt, mutators.archive),
    "pickle": Reader(".pt", (read_state_dict, _keyed), _pickles, mutators.pickled, _with_storage),
    "legacy": Reader(".pth", (read_state_dict,), _legacy, mutators.legacy, share=12),
    "torchscript": Reader(".jit", (read_state_dict,), _scripts, mutators.archive),
    "sb3": Reader(".zip", (read_agent, _critic, _agent_weights), _agents, mutators.archive, share=5),
    "keras": Reader(".keras", (fl.load,), _keras, mutators.archive),
    "config": Reader(".keras", (fl.load,), _config_texts, mutators.document, _with_weights),
    "h5": Reader(".h5", (fl.load,), _h5, mutators.hdf5),
    "weights": Reader(".h5", (_beside,), _alone, mutators.hdf5),
    # Of empty messages protobuf makes a hundred times their bytes; onnx.reference proves the rest.
    "onnx": Reader(
        ".onnx", (fl.load,), _onnx, mutators.message,
        memory=100, share=5, beside={"weights.bin": bytes(range(96))},
    ),
}  # fmt: skip

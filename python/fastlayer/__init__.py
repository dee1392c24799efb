"""Dense neural networks on NumPy arrays: their forward pass, and training.

Functions replace the NumPy lines of a layer (`linear`, `matmul`, `relu`, ...); `Layer` and
`Network` keep the weights packed for the kernels, and `Network.fit` trains. Shapes are ``x (m, k)``, ``weight (n, k)``,
``y (m, n)``: rows are samples, and a weight has one row for each neuron.

Examples
--------
>>> import fastlayer as fl
>>> net = fl.Network([fl.Layer(4, 8, "relu", rng=0), fl.Layer(8, 3, "softmax", rng=1)])
>>> net([0.0, 0.0, 0.0, 0.0]).shape
(3,)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer import _neighbour  # noqa: F401  # first: it warns of files that are not ours

try:
    from fastlayer import _core, threads

    threads.start()
except (ImportError, ValueError) as _error:  # FASTLAYER_ISA, FASTLAYER_NUM_THREADS
    from fastlayer.cli.environment import end_command

    end_command(_error)
    raise
from fastlayer.config import show_config
from fastlayer.errors import ConversionError, ModelFileError
from fastlayer.files.load import load
from fastlayer.functions.activation import Activation
from fastlayer.functions.elementwise import (
    celu,
    cos,
    elu,
    exp,
    gelu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    identity,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logistic,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    sin,
    softmax,
    softplus,
    softshrink,
    softsign,
    sqrt,
    swish,
    tanh,
    threshold,
)
from fastlayer.functions.products import bias_add, dense_forward, dot, linear, matmul
from fastlayer.network.branches import Add, Concat, Multiply, Slice
from fastlayer.network.chain import Residual
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm
from fastlayer.network.part import Flatten
from fastlayer.threads import get_num_threads, num_threads, set_num_threads

if TYPE_CHECKING:  # with `as` where a name is public and not in __all__
    from fastlayer import dask as dask
    from fastlayer import sklearn as sklearn
    from fastlayer.convert._numpy.recognise import Oriented as Oriented
    from fastlayer.convert.keras import from_keras
    from fastlayer.convert.numpy_objects import Accelerated as Accelerated
    from fastlayer.convert.numpy_objects import accelerate
    from fastlayer.convert.onnx import from_onnx
    from fastlayer.convert.sklearn import Classifier as Classifier
    from fastlayer.convert.sklearn import Regressor as Regressor
    from fastlayer.convert.sklearn import from_sklearn
    from fastlayer.convert.state_dict import from_state_dict
    from fastlayer.convert.torch import from_torch
    from fastlayer.functions.backward import activation_backward, dense_backward, linear_backward
    from fastlayer.report.profile import Profile as Profile
    from fastlayer.report.summary import Summary as Summary
    from fastlayer.report.verification import Proof as Proof
    from fastlayer.report.verification import Verification as Verification
    from fastlayer.train.gradients import GradientCheck as GradientCheck
    from fastlayer.train.gradients import Gradients as Gradients
    from fastlayer.train.gradients import check_gradients
    from fastlayer.train.history import History as History
    from fastlayer.train.loss import Loss
    from fastlayer.train.optimizers import SGD, Adam, AdamW
    from fastlayer.train.schedules import Schedule
    from fastlayer.train.trainer import Trainer

__version__: str = _core.config()["version"]

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Add",
    "BatchNorm",
    "Concat",
    "ConversionError",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Loss",
    "ModelFileError",
    "Multiply",
    "Network",
    "RMSNorm",
    "Residual",
    "Schedule",
    "Slice",
    "Trainer",
    "__version__",
    "accelerate",
    "activation_backward",
    "bias_add",
    "celu",
    "check_gradients",
    "cos",
    "dense_backward",
    "dense_forward",
    "dot",
    "elu",
    "exp",
    "from_keras",
    "from_onnx",
    "from_sklearn",
    "from_state_dict",
    "from_torch",
    "gelu",
    "get_num_threads",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "leaky_relu",
    "linear",
    "linear_backward",
    "load",
    "log_sigmoid",
    "log_softmax",
    "logistic",
    "matmul",
    "mish",
    "num_threads",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "sqrt",
    "swish",
    "tanh",
    "threshold",
]

# Whoever converts or trains nothing does not pay for that; it is imported when asked for. The
# classes are what methods and converters return: not in __all__, and here so that pickles find them.
_LAZY = {
    "Adam": "train.optimizers",
    "AdamW": "train.optimizers",
    "Accelerated": "convert.numpy_objects",
    "Classifier": "convert.sklearn",
    "GradientCheck": "train.gradients",
    "Gradients": "train.gradients",
    "History": "train.history",
    "Loss": "train.loss",
    "Oriented": "convert._numpy.recognise",
    "Profile": "report.profile",
    "Proof": "report.verification",
    "Regressor": "convert.sklearn",
    "SGD": "train.optimizers",
    "Schedule": "train.schedules",
    "Summary": "report.summary",
    "Trainer": "train.trainer",
    "Verification": "report.verification",
    "accelerate": "convert.numpy_objects",
    "activation_backward": "functions.backward",
    "check_gradients": "train.gradients",
    "dense_backward": "functions.backward",
    "from_keras": "convert.keras",
    "from_onnx": "convert.onnx",
    "from_sklearn": "convert.sklearn",
    "from_state_dict": "convert.state_dict",
    "from_torch": "convert.torch",
    "linear_backward": "functions.backward",
}


# Names that people look for, and what they find here.
_ELSEWHERE = {
    **dict.fromkeys(("Linear", "Dense"), 'fl.Layer(in_features, out_features, "relu")'),
    **dict.fromkeys(("Sequential", "Model", "MLP"), "fl.Network([fl.Layer(...), fl.Layer(...)])"),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), "fastlayer.sklearn"),
    **{
        name: f'the activation "{name.lower()}", as in fl.Layer(3, 8, "{name.lower()}"), or fl.{name.lower()}'
        for name in ("ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax", "ELU", "SELU", "Mish")
    },
    **dict.fromkeys(("from_pytorch", "from_pt"), "fl.from_torch(module)"),
    **dict.fromkeys(("from_tensorflow", "from_tf"), "fl.from_keras(model)"),
    **dict.fromkeys(("from_numpy", "from_arrays"), "fl.Layer.from_arrays, or fl.accelerate"),
    **dict.fromkeys(
        ("load_model", "from_file", "from_h5", "from_npz", "from_safetensors"), "fl.load(path)"
    ),
    **dict.fromkeys(("save", "save_model"), "net.save(path)"),
    **dict.fromkeys(("train", "fit"), "net.fit(x, t), or fl.Trainer"),
    "Dropout": "nothing: it does nothing in a prediction, and depends on chance in training",
}


if not TYPE_CHECKING:  # for whom every name would be there

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in ("dask", "sklearn"):  # not in __all__: a star import would hide the real ones
            return import_module(f"fastlayer.{name}")
        if name not in _LAZY:
            hint = f"; you may want {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            raise AttributeError(f"module 'fastlayer' has no attribute {name!r}{hint}")
        found = getattr(import_module(f"fastlayer.{_LAZY[name]}"), name)
        found.__module__ = "fastlayer"
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    # What tab completion offers: what is public, and not the modules that it comes from.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


# Pickles, tracebacks and docs name the public place of things, so that modules can be moved.
for _name in __all__:
    if _name not in _LAZY and not _name.startswith("__"):
        globals()[_name].__module__ = "fastlayer"
del _name

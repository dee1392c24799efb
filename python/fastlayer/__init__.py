"""The forward pass of dense neural networks on NumPy arrays.

Functions replace the NumPy lines of a layer (`linear`, `matmul`, `relu`, ...); `Layer` and
`Network` keep the weights packed for the kernels. Shapes are ``x (m, k)``, ``weight (n, k)``,
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

try:
    from fastlayer import _core, config
except ImportError as error:  # FASTLAYER_ISA
    from fastlayer._cli.environment import end_command

    end_command(error)
    raise
from fastlayer._chain import Flatten
from fastlayer._norms import BatchNorm, LayerNorm, RMSNorm
from fastlayer._rectifiers import (
    hardsigmoid,
    hardswish,
    hardtanh,
    identity,
    leaky_relu,
    prelu,
    relu,
    relu6,
)
from fastlayer._sigmoids import (
    exp,
    log_sigmoid,
    log_softmax,
    logistic,
    sigmoid,
    softmax,
    softsign,
    tanh,
)
from fastlayer._smooth import celu, elu, gelu, mish, selu, silu, softplus, swish
from fastlayer.activations import Activation
from fastlayer.config import get_num_threads, num_threads, set_num_threads, show_config
from fastlayer.convert._errors import ConversionError
from fastlayer.functional import bias_add, dense_forward, dot, linear, matmul
from fastlayer.io import ModelFileError, load
from fastlayer.layer import Layer
from fastlayer.modules import Residual
from fastlayer.network import Network

if TYPE_CHECKING:
    from fastlayer.convert.keras import from_keras
    from fastlayer.convert.numpy_objects import accelerate
    from fastlayer.convert.onnx import from_onnx
    from fastlayer.convert.sklearn import from_sklearn
    from fastlayer.convert.state_dict import from_state_dict
    from fastlayer.convert.torch import from_torch

__version__: str = _core.config()["version"]

__all__ = [
    "Activation",
    "BatchNorm",
    "ConversionError",
    "Flatten",
    "Layer",
    "LayerNorm",
    "ModelFileError",
    "Network",
    "RMSNorm",
    "Residual",
    "__version__",
    "accelerate",
    "bias_add",
    "celu",
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
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "leaky_relu",
    "linear",
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
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

# Whoever converts nothing does not pay for the converters; they are imported when asked for.
_CONVERTERS = {
    "accelerate": "numpy_objects",
    "from_keras": "keras",
    "from_onnx": "onnx",
    "from_sklearn": "sklearn",
    "from_state_dict": "state_dict",
    "from_torch": "torch",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "dask":  # not in __all__: a star import would hide the real one
        return import_module("fastlayer.dask")
    if name not in _CONVERTERS:
        raise AttributeError(f"module 'fastlayer' has no attribute {name!r}")
    found = getattr(import_module(f"fastlayer.convert.{_CONVERTERS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    # What tab completion offers: what is public, and not the modules that it comes from.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


try:
    config.start()
except ValueError as error:  # FASTLAYER_NUM_THREADS
    from fastlayer._cli.environment import end_command

    end_command(error)
    raise

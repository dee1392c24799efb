"""What is judged: every function as fastlayer, NumPy, PyTorch and ONNX Runtime users write it.

And its derivative, where PyTorch and JAX have it from automatic differentiation.

The formulas are text: the table in the report shows exactly what ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

import fastlayer as fl

Compute = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Function:
    """An activation with its parameters: what judges it, and each implementation's formula."""

    title: str
    reference: str  # a name in judge.cpp
    parameters: tuple[float, float]
    fastlayer: str
    numpy: str = ""
    torch: str = ""
    onnx: str = ""  # a graph's nodes, from x to y
    jax: str = ""
    zero: float = math.nan  # where a derivative passes through 0; errors near it count in eps


def derivative(
    title: str,
    parameters: tuple[float, float],
    fastlayer: str,
    numpy: str,
    torch: str,
    jax: str = "",
    *,
    reference: str = "",
    zero: float = math.nan,
) -> Function:
    """The derivative of a function, of which `torch` and `jax` name the function itself."""
    return Function(
        title,
        reference or title,
        parameters,
        f"fl.activation_backward(1.0, x, {fastlayer})",
        numpy,
        f"grad({torch}, x)",
        jax=f"grad({jax}, x)" if jax else "",
        zero=zero,
    )


SOFTPLUS = "np.where(x > 20, x, np.logaddexp(0, x))"
HARD = "np.clip(x + 3, 0, 6) / 6"
GELU_TANH = "0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))"
SELU = "1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))"
CLIP = (
    "low = Constant<value = TYPE {{{}}}>() high = Constant<value = TYPE {{{}}}>() "
    "y = Clip(x, low, high)"
)
FUNCTIONS = (
    Function("relu", "relu", (0, 0), "fl.relu(x)", "np.maximum(x, 0)", "F.relu(x)", "y = Relu(x)"),
    Function(
        "relu6", "clip", (0, 6), "fl.relu6(x)", "np.clip(x, 0, 6)", "F.relu6(x)", CLIP.format(0, 6)
    ),
    Function(
        "hardtanh",
        "clip",
        (-1, 1),
        "fl.hardtanh(x)",
        "np.clip(x, -1, 1)",
        "F.hardtanh(x)",
        CLIP.format(-1, 1),
    ),
    Function(
        "leaky_relu",
        "leaky_relu",
        (0.01, 0),
        "fl.leaky_relu(x)",
        "np.where(x > 0, x, 0.01 * x)",
        "F.leaky_relu(x)",
        "y = LeakyRelu(x)",
    ),
    Function("exp", "exp", (0, 0), "fl.exp(x)", "np.exp(x)", "torch.exp(x)", "y = Exp(x)"),
    Function("sin", "sin", (0, 0), "fl.sin(x)", "np.sin(x)", "torch.sin(x)", "y = Sin(x)"),
    Function("cos", "cos", (0, 0), "fl.cos(x)", "np.cos(x)", "torch.cos(x)", "y = Cos(x)"),
    Function("tanh", "tanh", (0, 0), "fl.tanh(x)", "np.tanh(x)", "torch.tanh(x)", "y = Tanh(x)"),
    Function(
        "sigmoid",
        "sigmoid",
        (0, 0),
        "fl.sigmoid(x)",
        "1 / (1 + np.exp(-x))",
        "torch.sigmoid(x)",
        "y = Sigmoid(x)",
    ),
    Function(
        "silu",
        "silu",
        (0, 0),
        "fl.silu(x)",
        "x / (1 + np.exp(-x))",
        "F.silu(x)",
        "s = Sigmoid(x) y = Mul(x, s)",
    ),
    Function(
        "softplus",
        "softplus",
        (1, 20),
        "fl.softplus(x)",
        SOFTPLUS,
        "F.softplus(x)",
        "y = Softplus(x)",
    ),
    Function(
        "softplus, beta 3",
        "softplus",
        (3, 60),
        "fl.softplus(x, beta=3, threshold=60)",
        "np.where(x > 20, x, np.logaddexp(0, 3 * x) / 3)",
        "F.softplus(x, beta=3, threshold=60)",
    ),
    Function(
        "log_sigmoid",
        "log_sigmoid",
        (0, 0),
        "fl.log_sigmoid(x)",
        "-np.logaddexp(0, -x)",
        "F.logsigmoid(x)",
        "s = Sigmoid(x) y = Log(s)",
    ),
    Function(
        "elu",
        "celu",
        (1, 0),
        "fl.elu(x)",
        "np.where(x > 0, x, np.expm1(x))",
        "F.elu(x)",
        "y = Elu(x)",
    ),
    Function(
        "celu, alpha 0.75",
        "celu",
        (0.75, 0),
        "fl.celu(x, alpha=0.75)",
        "np.where(x > 0, x, 0.75 * np.expm1(x / 0.75))",
        "F.celu(x, alpha=0.75)",
        "y = Celu<alpha: float = 0.75>(x)",
    ),
    Function(
        "celu, alpha 3",
        "celu",
        (3, 0),
        "fl.celu(x, alpha=3)",
        "np.where(x > 0, x, 3 * np.expm1(x / 3))",
        "F.celu(x, alpha=3)",
        "y = Celu<alpha: float = 3.0>(x)",
    ),
    Function("selu", "selu", (0, 0), "fl.selu(x)", SELU, "F.selu(x)", "y = Selu(x)"),
    Function("gelu (erf)", "gelu", (0, 0), "fl.gelu(x)", "", "F.gelu(x)", "y = Gelu(x)"),
    Function(
        "gelu (tanh)",
        "gelu_tanh",
        (0, 0),
        "fl.gelu(x, 'tanh')",
        GELU_TANH,
        "F.gelu(x, approximate='tanh')",
        'y = Gelu<approximate: string = "tanh">(x)',
    ),
    Function(
        "mish",
        "mish",
        (0, 0),
        "fl.mish(x)",
        "x * np.tanh(np.logaddexp(0, x))",
        "F.mish(x)",
        "y = Mish(x)",
    ),
    Function(
        "hardsigmoid",
        "hardsigmoid",
        (0, 0),
        "fl.hardsigmoid(x)",
        HARD,
        "F.hardsigmoid(x)",
        "y = HardSigmoid<alpha: float = 0.16666667, beta: float = 0.5>(x)",
    ),
    Function(
        "hardswish",
        "hardswish",
        (0, 0),
        "fl.hardswish(x)",
        f"x * ({HARD})",
        "F.hardswish(x)",
        "y = HardSwish(x)",
    ),
    Function(
        "softsign",
        "softsign",
        (0, 0),
        "fl.softsign(x)",
        "x / (1 + np.abs(x))",
        "F.softsign(x)",
        "y = Softsign(x)",
    ),
)

# What people write by hand.
SIGMOID_SLOPE = "(lambda s: s * (1 - s))(1 / (1 + np.exp(-x)))"
SILU_SLOPE = "(lambda s: s * (1 + x * (1 - s)))(1 / (1 + np.exp(-x)))"
GELU_TANH_SLOPE = (
    "(lambda t: 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654"
    " * (1 + 0.134145 * x**2))(np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))"
)
MISH_SLOPE = "(lambda t: t + x * (1 - t * t) / (1 + np.exp(-x)))(np.tanh(np.logaddexp(0, x)))"
DERIVATIVES = (
    derivative("relu'", (0, 0), "'relu'", "np.where(x > 0, 1, x * 0)", "F.relu", "nn.relu"),
    derivative(
        "relu6'",
        (0, 6),
        "'relu6'",
        "np.where((x > 0) & (x < 6), 1, x * 0)",
        "F.relu6",
        "nn.relu6",
        reference="clip'",
    ),
    derivative(
        "leaky_relu'",
        (0.01, 0),
        "'leaky_relu'",
        "np.where(x > 0, 1, x.dtype.type(0.01))",
        "F.leaky_relu",
        "nn.leaky_relu",
    ),
    derivative("sin'", (0, 0), "'sin'", "np.cos(x)", "torch.sin", "jax.numpy.sin", reference="cos"),
    derivative("cos'", (0, 0), "'cos'", "-np.sin(x)", "torch.cos", "jax.numpy.cos"),
    derivative("tanh'", (0, 0), "'tanh'", "1 - np.tanh(x) ** 2", "torch.tanh", "nn.tanh"),
    derivative("sigmoid'", (0, 0), "'sigmoid'", SIGMOID_SLOPE, "torch.sigmoid", "nn.sigmoid"),
    derivative(
        "silu'", (0, 0), "'silu'", SILU_SLOPE, "F.silu", "nn.silu", zero=-1.2784645427610738
    ),
    derivative(
        "softplus'", (1, 20), "'softplus'", "1 / (1 + np.exp(-x))", "F.softplus", "nn.softplus"
    ),
    derivative(
        "log_sigmoid'",
        (0, 0),
        "'log_sigmoid'",
        "1 / (1 + np.exp(x))",
        "F.logsigmoid",
        "nn.log_sigmoid",
    ),
    derivative(
        "elu'",
        (1, 0),
        "'elu'",
        "np.where(x > 0, 1, np.exp(x))",
        "F.elu",
        "nn.elu",
        reference="celu'",
    ),
    derivative(
        "celu', alpha 0.75",
        (0.75, 0),
        "fl.Activation('celu', alpha=0.75)",
        "np.where(x > 0, 1, np.exp(x / 0.75))",
        "lambda x: F.celu(x, alpha=0.75)",
        "lambda x: nn.celu(x, 0.75)",
        reference="celu'",
    ),
    derivative(
        "celu', alpha 3",
        (3, 0),
        "fl.Activation('celu', alpha=3)",
        "np.where(x > 0, 1, np.exp(x / 3))",
        "lambda x: F.celu(x, alpha=3)",
        "lambda x: nn.celu(x, 3)",
        reference="celu'",
    ),
    derivative(
        "selu'",
        (0, 0),
        "'selu'",
        "1.0507009873554805 * np.where(x > 0, 1, 1.6732632423543772 * np.exp(x))",
        "F.selu",
        "nn.selu",
    ),
    derivative(
        "gelu' (erf)",
        (0, 0),
        "'gelu'",
        "",
        "F.gelu",
        "lambda x: nn.gelu(x, approximate=False)",
        reference="gelu'",
        zero=-0.7517915246935645,
    ),
    derivative(
        "gelu' (tanh)",
        (0, 0),
        "fl.Activation('gelu', approximate='tanh')",
        GELU_TANH_SLOPE,
        "lambda x: F.gelu(x, approximate='tanh')",
        "nn.gelu",
        reference="gelu_tanh'",
        zero=-0.7524614220710163,
    ),
    derivative(
        "mish'", (0, 0), "'mish'", MISH_SLOPE, "F.mish", "nn.mish", zero=-1.1924312145154953
    ),
    derivative(
        "hardsigmoid'",
        (0, 0),
        "'hardsigmoid'",
        "np.where(np.abs(x) < 3, x.dtype.type(1 / 6), x * 0)",
        "F.hardsigmoid",
        "nn.hard_sigmoid",
    ),
    derivative(
        "hardswish'",
        (0, 0),
        "'hardswish'",
        "np.where(x < -3, x * 0, np.where(x < 3, (2 * x + 3) / 6, 1))",
        "F.hardswish",
        "nn.hard_swish",
    ),
    derivative(
        "softsign'",
        (0, 0),
        "'softsign'",
        "1 / (1 + np.abs(x)) ** 2",
        "F.softsign",
        "nn.soft_sign",
    ),
)


@cache
def versions() -> dict[str, str]:
    """The implementations by name, "" for one that is not installed."""
    found = {
        "fastlayer": fl.__version__,
        "NumPy": np.__version__,
        "PyTorch": "",
        "ONNX Runtime": "",
        "JAX": "",
    }
    try:
        import torch

        torch.set_num_threads(1)  # the script's own threads share the work
        found["PyTorch"] = torch.__version__
    except ImportError:
        pass
    try:
        import onnx.parser  # noqa: F401
        import onnxruntime

        found["ONNX Runtime"] = onnxruntime.__version__
    except ImportError:
        pass
    try:
        import jax

        jax.config.update("jax_enable_x64", True)
        found["JAX"] = jax.__version__
    except ImportError:
        pass
    fl.set_num_threads(1)
    return found


def torch_grad(f, x):
    """The derivative of an element-wise function at every x."""
    import torch

    x = x.requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def jax_grad(f, x):
    """The same in JAX."""
    import jax

    return jax.vjp(f, x)[1](jax.numpy.ones_like(x))[0]


def implementations(function: Function, dtype: type) -> dict[str, Compute]:
    """Those that are installed and offer this function for this dtype."""
    found: dict[str, Compute] = {"fastlayer": eval(f"lambda x: {function.fastlayer}", {"fl": fl})}
    if function.numpy:
        found["NumPy"] = eval(f"lambda x: {function.numpy}", {"np": np})
    if versions()["PyTorch"]:
        import torch

        known = {"torch": torch, "F": torch.nn.functional, "grad": torch_grad}
        formula = eval(f"lambda x: {function.torch}", known)
        found["PyTorch"] = lambda x: formula(torch.from_numpy(x)).numpy()
    if versions()["JAX"] and function.jax:
        import jax

        known = {"jax": jax, "nn": jax.nn, "grad": jax_grad}
        compiled = jax.jit(eval(f"lambda x: {function.jax}", known))
        found["JAX"] = lambda x: np.asarray(compiled(x))
    if versions()["ONNX Runtime"] and function.onnx:
        session = onnx_session(function.onnx, dtype)
        if session is not None:
            found["ONNX Runtime"] = lambda x: session.run(None, {"x": x})[0]
    return found


def onnx_session(nodes: str, dtype: type, arguments: str = "TYPE[n] x) => (TYPE[n] y", **constants):
    """A session of one thread, or None where ONNX Runtime does not compute this in `dtype`."""
    import onnx.numpy_helper
    import onnx.parser
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

    text = f'<ir_version: 9, opset_import: ["": 20]> g ({arguments}) {{ {nodes} }}'
    text = text.replace("TYPE", "float" if dtype == np.float32 else "double")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    model = onnx.parser.parse_model(text)
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    data, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except (InvalidGraph, NotImplemented):
        return None


def gemm_agreement() -> list[list[str]]:
    """k, n and the shares of ONNX Runtime's float32 outputs that equal ours.

    Of one row and of 2 to 64, with weights that are constants of the model; then of 2 to 64 rows
    with weights that are an input, which ONNX Runtime cannot prepare.
    """
    fixed = "TYPE[m, k] x) => (TYPE[m, n] y"
    fed = f"TYPE[n, k] w, TYPE[n] b, {fixed}"
    node = "y = Gemm<transB: int = 1>(x, w, b)"
    rng = np.random.default_rng(7)
    rows = []
    for k in (64, 784, 1000, 2048):
        for n in (10, 64, 512):
            w, b = (rng.standard_normal(s, dtype=np.float32) for s in ((n, k), n))
            constant = onnx_session(node, np.float32, fixed, w=w, b=b)
            variable = onnx_session(node, np.float32, fed)
            batches = (2, 3, 4, 7, 16, 33, 64)
            shares = []
            for session, numbers in (
                (constant, [1] * 20),
                (constant, batches),
                (variable, batches),
            ):
                equal = []
                for m in numbers:
                    x = rng.standard_normal((m, k), dtype=np.float32)
                    feed = {"x": x} if session is constant else {"x": x, "w": w, "b": b}
                    theirs = session.run(None, feed)[0]
                    equal.append((theirs == fl.linear(x, w, b)).ravel())
                shares.append(f"{100 * np.concatenate(equal).mean():.2f} %")
            rows.append([str(k), str(n), *shares])
    return rows

"""JAX: the whole case under `jit`, arrays on its device, waiting for the result."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def available() -> str | None:
    try:
        return version("jax")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import jax
    from jax import nn
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    functions = {
        "exp": jnp.exp,
        "sin": jnp.sin,
        "cos": jnp.cos,
        "tanh": jnp.tanh,
        "softsign": nn.soft_sign,
        "hardtanh": nn.hard_tanh,
        "hardsigmoid": nn.hard_sigmoid,
        "hardswish": nn.hard_swish,
        "gelu": lambda x: nn.gelu(x, approximate=False),
    }

    def function(act: str | None):
        return functions.get(act) or (getattr(nn, act) if act else lambda x: x)

    inputs = tuple(jnp.asarray(array) for array in case.inputs(dtype))
    if case.kind in ("column", "accelerate", "load"):
        return None  # a column: a batch of one is a case of its own
    if case.kind in ("matmul", "linear", "activation"):
        compute = {
            "matmul": jnp.matmul,
            "linear": lambda x, weight, bias: x @ weight.T + bias,
            "activation": function(case.hidden),
        }[case.kind]
        jitted = jax.jit(compute)
        return {"jit": (lambda *arrays: jitted(*arrays).block_until_ready(), inputs)}
    layers = case.layers(dtype)
    acts = [function(act) for _, _, act in layers]
    # arguments, not constants: XLA would spend minutes folding large ones
    parameters = [(jnp.asarray(w.T.copy()), jnp.asarray(b)) for w, b, _ in layers]

    @jax.jit
    def forward(parameters, x, *joined):
        for i, ((weight, bias), act) in enumerate(zip(parameters, acts, strict=True)):
            x = act(x @ weight + bias)
            if i == 0 and joined:
                x = jnp.concatenate([x, *joined], axis=1)
        return x

    return {"jit": (lambda *arrays: forward(parameters, *arrays).block_until_ready(), inputs)}

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


def learners(task):
    """A step at a time, and an epoch in one `scan`; weights are given away (donated)."""
    import jax
    import numpy as np
    from jax import numpy as jnp

    from peers._training import BETAS, EPS, Learner

    jax.config.update("jax_enable_x64", True)
    x, t = jnp.asarray(task.x), jnp.asarray(task.t)
    rate, (b1, b2) = task.rate, BETAS

    def forward(parameters, x):
        for i, (weight, bias) in enumerate(parameters):
            x = x @ weight + bias
            if i < len(parameters) - 1:
                x = jax.nn.relu(x)
        return x

    def loss_of(parameters, x, t):
        x = forward(parameters, x)
        if task.regression:
            return jnp.mean((x - t) ** 2)
        picked = jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1)
        return -jnp.mean(picked)

    def step(state, at):
        parameters, m, v, count = state
        loss, g = jax.value_and_grad(loss_of)(parameters, x[at], t[at])
        if task.optimizer == "sgd":
            parameters = jax.tree.map(lambda p, g: p - rate * g, parameters, g)
            return (parameters, m, v, count), loss
        count = count + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        c1, c2 = 1 - b1**count, 1 - b2**count

        def update(p, m, v):
            return (p - rate * (m / c1) / (jnp.sqrt(v / c2) + EPS)).astype(p.dtype)

        return (jax.tree.map(update, parameters, m, v), m, v, count), loss

    def start():
        parameters = [(jnp.asarray(w.T.copy()), jnp.asarray(b)) for w, b, _ in task.layers]
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        count = jnp.asarray(0, x.dtype)
        return [(parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), count)]

    one = jax.jit(step, donate_argnums=0)
    whole = jax.jit(lambda state, order: jax.lax.scan(step, state, order), donate_argnums=0)
    outputs = jax.jit(forward)

    def learner(run):
        kept = start()

        def epoch(order):
            kept[0], losses = run(kept[0], order)
            return losses.block_until_ready()

        def answers(rows):
            return np.asarray(outputs(kept[0][0], jnp.asarray(rows))).argmax(axis=1)

        def own(order):
            return jnp.asarray(order.reshape(-1, task.batch))

        def ready(order):
            run(jax.tree.map(jnp.copy, kept[0]), order)  # which gives the copy away

        return Learner(epoch, answers, own, ready)

    def by_step(state, order):
        losses = []
        for at in order:
            state, loss = one(state, at)
            losses.append(loss)
        return state, jnp.stack(losses)

    return {"step": learner(by_step), "scan": learner(whole)}

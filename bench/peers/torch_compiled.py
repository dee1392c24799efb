"""PyTorch's `torch.compile`, where networks are trained; without training, AOTInductor is a form of
the eager peer. It needs a C++ compiler, and seconds for each network, which are not timed.
"""

from __future__ import annotations

import os

from peers import _torch_compiled, torch_eager

available = torch_eager.available


def prepare(case, dtype: str, threads: int):
    return None


def learners(task):
    """The loss with its gradients compiled, and the fused optimiser or one that is compiled, too."""
    if task.x.dtype != "float32":
        return None  # it would take as long again for products that go to the same BLAS
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_torch_compiled.folder() / "inductor")
    import torch
    from torch._inductor import config

    from peers._torch_training import learner

    torch._dynamo.reset()  # it gives up on code that it has compiled eight times
    ways = {
        "compiled step": {"compiled_step": True, "foreach": True},
        "compiled loss": {"fused": True},
    }
    with config.patch(compile_threads=1), _torch_compiled.limit(_torch_compiled.PATIENCE):
        return {name: learner(task, compiled=True, **how) for name, how in ways.items()}

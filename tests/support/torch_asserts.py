"""Forwards with assertions, in a file of their own: pytest rewrites those of the tests."""

import torch
import torch.nn.functional as F


def body(m, x):
    return m.fc[1](F.relu(m.fc[0](x)))


def of_shapes(m, x):
    assert x.shape[-1] == 6, "features"
    assert x.dim() == 2
    assert x.shape[0] > 0, f"{x.shape}"
    return body(m, x)


def of_several(m, x):
    assert x.ndim == 2 and x.shape[1] == 6  # noqa: PT018  # "and" asks too
    return body(m, x)


def of_values(m, x):
    assert (x < 1e9).all()
    h = body(m, x)
    assert h.isfinite().all()
    return h


def errors(m, x):
    if x.dim() != 2 or x.shape[1] != 6:
        raise ValueError(f"expected (m, 6), got {tuple(x.shape)}")
    if torch.isnan(x).any():
        raise ValueError("NaN")
    return body(m, x)

"""The training loop of PyTorch, which is the same for all of its peers."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from peers._training import Learner


def learner(task, compiled: bool = False, compiled_step: bool = False, **how) -> Learner:
    """`how` is the optimiser's. Where `compiled` is set, the loss with its gradients is, before this
    returns, and so may be the step.
    """
    torch.set_num_threads(task.threads)
    x, t = torch.from_numpy(task.x), torch.from_numpy(task.t)
    net = nn.Sequential(*chain.from_iterable(_modules(*layer) for layer in task.layers))
    kind = torch.optim.Adam if task.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(net.parameters(), lr=task.rate, **how)
    measure = nn.MSELoss() if task.regression else nn.CrossEntropyLoss()

    def loss_of(x, t):
        return measure(net(x), t)

    step = optimizer.step
    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)
        step = torch.compile(step) if compiled_step else step
        start = [p.detach().clone() for p in net.parameters()]
        for _ in range(2):  # the second step finds gradients and moments
            optimizer.zero_grad()
            loss_of(x[: task.batch], t[: task.batch]).backward()
            step()
        with torch.no_grad():
            for p, before in zip(net.parameters(), start, strict=True):
                p.copy_(before)
                for moment in optimizer.state[p].values():
                    if moment is not None:  # that of SGD without momentum
                        moment.zero_()

    def epoch(order):
        losses = []
        for at in order.split(task.batch):
            optimizer.zero_grad()
            loss = loss_of(x[at], t[at])
            loss.backward()
            step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def answers(rows):
        with torch.inference_mode():
            return net(torch.from_numpy(rows)).argmax(dim=1).numpy()

    return Learner(epoch, answers, torch.from_numpy)


def _modules(weight, bias, act):
    layer = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], dtype=torch.from_numpy(bias).dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return [layer, nn.ReLU()] if act else [layer]

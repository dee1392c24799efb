"""scikit-learn's MLP with the case's weights put in, told to check as little as it can be."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}


def available() -> str | None:
    try:
        return version("scikit-learn")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import sklearn
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if case.kind != "network" or case.hidden not in ACTIVATIONS:
        return None
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    layers = case.layers(dtype)
    kind = MLPClassifier if case.end == "softmax" else MLPRegressor
    if case.end == "softmax" and case.sizes[-1] == 1:
        return None  # its classifier has a sigmoid there
    model = kind(hidden_layer_sizes=case.sizes[1:-1], activation=ACTIVATIONS[case.hidden])
    model.coefs_ = [weight.T for weight, _, _ in layers]
    model.intercepts_ = [bias for _, bias, _ in layers]
    model.n_layers_ = len(layers) + 1
    model.n_outputs_ = case.sizes[-1]
    model.n_features_in_ = case.sizes[0]
    model.out_activation_ = case.end or "identity"
    call = model.predict_proba if case.end == "softmax" else model.predict
    return {"predict": (call, case.inputs(dtype))}


def learners(task):
    """`partial_fit`, an epoch in a call, of rows that lie in their order."""
    import numpy as np
    import sklearn
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from peers._training import Learner

    if task.sizes[-1] == 2:
        return None  # its classifier has one output there
    mean = 0.5 if task.regression else 1.0  # its loss of a regression is half of the mean square
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    model = (MLPRegressor if task.regression else MLPClassifier)(
        hidden_layer_sizes=task.sizes[1:-1],
        solver=task.optimizer,
        batch_size=task.batch,
        learning_rate_init=task.rate / (mean if task.optimizer == "sgd" else 1),
        momentum=0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        shuffle=False,
    )
    t = task.t[:, 0] if task.regression else task.t
    classes = {} if task.regression else {"classes": np.arange(task.sizes[-1])}
    model.partial_fit(task.x[: task.batch], t[: task.batch], **classes)
    # It has made arrays, and the optimiser that holds them: all from the start.
    for weight, bias, (w, b, _) in zip(model.coefs_, model.intercepts_, task.layers, strict=True):
        weight[:], bias[:] = w.T, b
    if task.optimizer == "adam":
        model._optimizer.t = 0
        for moment in (*model._optimizer.ms, *model._optimizer.vs):
            moment[:] = 0

    def epoch(ordered):
        model.partial_fit(*ordered)
        return model.loss_

    def own(order):
        return task.x[order], t[order]

    return {"partial_fit": Learner(epoch, model.predict, own, mean=mean)}

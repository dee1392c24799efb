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


def train(case, dtype: str, threads: int):
    """`partial_fit`, an epoch in a call, from the case's weights and in its order."""
    import numpy as np
    import sklearn
    from cases import LEARNING_RATE
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from peers._training import reference, samples

    if case.sizes[-1] == 2:
        return None  # its classifier has one output there
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    x, t, order = samples(case, dtype)
    x, t = x[order], t[order]
    classifies = case.sizes[-1] > 1
    model = (MLPClassifier if classifies else MLPRegressor)(
        hidden_layer_sizes=case.sizes[1:-1],
        solver=case.layout,
        batch_size=case.batch,
        learning_rate_init=LEARNING_RATE[case.layout],
        momentum=0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        shuffle=False,
    )
    t = t if classifies else t[:, 0]
    classes = {"classes": np.arange(case.sizes[-1])} if classifies else {}
    model.partial_fit(x, t, **classes)  # makes arrays, and the optimiser that holds them
    for kept, (w, b, _) in zip(
        zip(model.coefs_, model.intercepts_, strict=True), case.layers(dtype), strict=True
    ):
        kept[0][:], kept[1][:] = w.T, b
    if case.layout == "adam":
        model._optimizer.t = 0
        for moment in (*model._optimizer.ms, *model._optimizer.vs):
            moment[:] = 0
    losses = reference(case).astype(dtype)

    def epoch():
        model.partial_fit(x, t)
        return losses

    epoch()
    # It tells the mean of an epoch only; that of a regression is half of the mean square.
    wanted = losses.mean() / (1 if classifies else 2)
    if abs(model.loss_ - wanted) > 1e-3 * wanted:
        raise ValueError(f"a loss of {model.loss_} instead of {wanted}")
    return {"partial_fit": (epoch, ())}

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
    model = kind(case.sizes[1:-1], activation=ACTIVATIONS[case.hidden])
    model.coefs_ = [weight.T for weight, _, _ in layers]
    model.intercepts_ = [bias for _, bias, _ in layers]
    model.n_layers_ = len(layers) + 1
    model.n_outputs_ = case.sizes[-1]
    model.n_features_in_ = case.sizes[0]
    model.out_activation_ = case.end or "identity"
    call = model.predict_proba if case.end == "softmax" else model.predict
    return {"predict": (call, case.inputs(dtype))}

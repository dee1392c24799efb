"""from_onnx: operators of other domains that are taken apart, judged by ONNX Runtime."""

import numpy as np
import pytest

from fastlayer.convert.onnx import from_onnx
from fastlayer.errors import ConversionError, ModelFileError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx_models import DENSE, WEIGHTS, check, integers, make, number

FRONT = {
    "FusedGemm": 'y = com.microsoft.FusedGemm<activation="Relu", transB=1>(x, w, b)',
    "FusedGemm alpha": 'y = com.microsoft.FusedGemm<activation="LeakyRelu", activation_alpha=0.3, '
    "alpha=0.5, beta=2.0, transB=1>(x, w, b)",
    "FusedGemm HardSigmoid": 'y = com.microsoft.FusedGemm<activation="HardSigmoid", '
    "activation_alpha=0.3, activation_beta=0.4, transB=1>(x, w, b)",
    "Gelu": DENSE + "y = com.microsoft.Gelu(h)",
    "FastGelu": DENSE + "y = com.microsoft.FastGelu(h)",
    "FastGelu with a bias": DENSE + "y = com.microsoft.FastGelu(h, b)",
    "BiasGelu": DENSE + "y = com.microsoft.BiasGelu(h, b)",
    "QuickGelu": DENSE + "y = com.microsoft.QuickGelu<alpha=1.702>(h)",
    "Scaler": "s = ai.onnx.ml.Scaler<offset=[0.5, 100.0, -3.0, 0.0], scale=[2.0, 0.1, 1.0, 5.0]>(x)\n"
    "y = Gemm<transB=1>(s, w, b)",
    "Scaler of one number": "s = ai.onnx.ml.Scaler<offset=[0.5], scale=[2.0]>(x)\n"
    "y = Gemm<transB=1>(s, w, b)",
    "Normalizer": 'n = ai.onnx.ml.Normalizer<norm="L2">(x)\ny = Gemm<transB=1>(n, w, b)',
    "LinearRegressor": "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, -2.0, 0.5, 3.0, 1.0, 0.25, "
    "-1.0, 2.0], intercepts=[0.5, -1.0], targets=2>(x)",
    "LinearRegressor without intercepts": "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, -2.0, "
    "0.5, 3.0], targets=1>(x)",
}


def of_other_domains(text, **constants):
    model = make(text, 20, **constants)
    for domain, version in (("com.microsoft", 1), ("ai.onnx.ml", 3)):
        model.opset_import.append(onnx.helper.make_opsetid(domain, version))
    return model


def used(text):
    return {
        name: shape for name, shape in WEIGHTS.items() if f" {name}," in text or f" {name})" in text
    }


@pytest.mark.parametrize("name", FRONT)
def test_operators_of_other_domains(name):
    check(of_other_domains(FRONT[name], **used(FRONT[name])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_over_their_length(dtype):
    """Those of zeros stay so; others are as exact as their squares."""
    net = from_onnx(make("y = LpNormalization<axis=1>(x)", 22, dtype=dtype))
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    x[1], x[2], x[3] = 0, x[2] * dtype(1e-18), x[3] * dtype(1e18)
    wide = x.astype(np.longdouble)
    right = wide / np.maximum(np.sqrt((wide**2).sum(axis=1, keepdims=True)), np.longdouble(1e-300))
    np.testing.assert_allclose(net(x), right.astype(dtype), rtol=8 * np.finfo(dtype).eps)
    for text in ("y = LpNormalization<p=1>(x)", "y = LpNormalization<axis=0>(x)"):
        with pytest.raises(ConversionError, match="the length of each row"):
            from_onnx(make(text))


@pytest.mark.parametrize("op", ["Imputer<imputed_value_floats=[1.0]>", "Binarizer<threshold=0.5>"])
def test_other_steps_are_cut_off(op):
    """As the message says: what comes after the step is a model of its own."""
    made = of_other_domains(
        f"i = ai.onnx.ml.{op}(x)\ny = Gemm<transB=1>(i, w, b)", w=(3, 4), b=(3,)
    )
    with pytest.raises(ConversionError, match=r"step of classical machine learning.*extract_model"):
        from_onnx(made)
    made.graph.value_info.append(onnx.helper.make_tensor_value_info("i", 1, ["N", 4]))
    rest = onnx.utils.Extractor(made).extract_model(["i"], ["y"])
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    session = ort.InferenceSession(rest.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(from_onnx(rest)(rows), session.run(None, {"i": rows})[0], rtol=1e-5)


def test_one_class_of_two_is_refused():
    text = (
        "l, y = ai.onnx.ml.LinearClassifier<coefficients=[1.0, 2.0, 3.0, 4.0], intercepts=[0.5], "
        'classlabels_ints=[0, 1], post_transform="LOGISTIC">(x)'
    )
    with pytest.raises(ConversionError, match="coefficients of one class of two"):
        from_onnx(of_other_domains(text))


def test_they_may_be_used_several_times():
    text = """
    g = com.microsoft.FusedGemm<activation="Tanh", transB=1>(x, w, b)
    k = com.microsoft.QuickGelu(g)
    l = com.microsoft.QuickGelu(k)
    y = com.microsoft.FusedGemm<activation="Sigmoid", transB=1>(l, v, c)"""
    assert len(check(of_other_domains(text, **WEIGHTS))) > 2


@pytest.mark.parametrize(
    "text",
    [
        'y = com.microsoft.FusedGemm<activation="Relu">(x)',
        "y = com.microsoft.FusedGemm<activation=3>(x, w, b)",
        "y = com.microsoft.Gelu()",
        "y = ai.onnx.ml.Scaler<offset=[1.0]>(x)",
        "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 2.0], targets=3>(x)",
        "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 2.0], targets=0>(x)",
        f"y = ai.onnx.ml.LinearRegressor<targets={1 << 40}>(x)",
    ],
)
def test_damaged_ones_are_refused(text):
    model = of_other_domains(text, **used(text))
    with pytest.raises(ModelFileError, match="node"):
        from_onnx(model)


KINDS = {
    "ai.onnx.ml.TreeEnsembleClassifier(x)": "ensemble of trees.*ONNX Runtime",
    "ai.onnx.ml.TreeEnsembleRegressor(x)": "ensemble of trees.*ONNX Runtime",
    "ai.onnx.ml.SVMRegressor(x)": "kernel machine.*ONNX Runtime",
    "LSTM(x, w, w)": "recurrent part",
    "GRU(x, w, w)": "recurrent part",
    "Conv(x, w)": "convolutional part",
    "com.microsoft.Attention(x, w, b)": "run the attention",
    'ai.onnx.ml.LinearRegressor<coefficients=[1.0], post_transform="PROBIT">(x)': "its post_transform",
}


@pytest.mark.parametrize("node", KINDS)
def test_other_kinds_of_models_are_called_by_name(node):
    text = f"y = {node}"
    with pytest.raises(ConversionError, match=KINDS[node]):
        from_onnx(of_other_domains(text, **used(text)))


def test_what_fuses_to_nothing_known_is_refused():
    model = of_other_domains(
        'y = com.microsoft.FusedGemm<activation="Sinh", transB=1>(x, w, b)', **used(" w, b)")
    )
    with pytest.raises(ConversionError, match="Sinh"):
        from_onnx(model)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_what_the_optimiser_of_onnx_runtime_writes(tmp_path, level):
    """What a refusal advises is tried."""
    text = """
    h = Gemm<transB=1>(x, w, b)
    a = Relu(h)
    g = Gemm<transB=1>(a, v, c)
    d = Div(g, two)
    e = Erf(d)
    f = Add(e, one)
    k = Mul(g, f)
    y = Mul(k, half)"""
    constants = {"two": number(np.sqrt(2)), "one": number(1), "half": number(0.5)}
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    model = make(text, 17, **WEIGHTS, **constants)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    domains = {node.domain for node in optimised.graph.node}
    assert ("com.microsoft" in domains) == (level == "ORT_ENABLE_EXTENDED")
    x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    np.testing.assert_allclose(from_onnx(optimised)(x), from_onnx(model)(x), rtol=1e-5, atol=1e-6)


EQUATIONS = {
    "ij,jk->ik": (4, 3), "ij,kj->ik": (3, 4), "...a,ab->...b": (4, 3), " b f , o f -> b o ": (3, 4),
    "ij,jk": (4, 3), "...a,ab": (4, 3), "ij,kj": (3, 4),
}  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_as_a_dense_layer(equation):
    shape = EQUATIONS[equation]
    check(make(f'h = Einsum<equation="{equation}">(x, w)\ny = Relu(h)', w=shape))
    rows, weight = equation.replace(" ", "").partition("->")[0].split(",")
    arrow = equation.replace(" ", "").partition("->")[1:]
    turned = f"{weight},{rows}{''.join(arrow)}"
    check(make(f'h = Einsum<equation="{turned}">(w, x)\ny = Relu(h)', w=shape))


def test_einsum_of_columns():
    """Samples become columns, and rows again; one neuron leaves no axis."""
    check(make('h = Einsum<equation="bi,io->ob">(x, w)\ny = Transpose(h)', w=(4, 3)))
    check(make('h = Transpose(x)\ny = Einsum<equation="ib,oi->bo">(h, w)', w=(3, 4)))
    check(
        make('h = Einsum<equation="bi,i->b">(x, w)\ny = Unsqueeze(h, at)', w=(4,), at=integers(1))
    )


def test_einsum_of_tokens():
    check(make('y = Einsum<equation="bsd,de->bse">(x, w)', 13, shape=("N", 2, 4), w=(4, 3)), (2, 4))


@pytest.mark.parametrize(
    "equation",
    ["ij,jk->jk", "ij,jk->i", "ij,ij->ij", "ij,jj->ij", "ii,ik->ik", "ij->ji", "ij,jk->ij",
     "", "->", "i,jk->ik", "ij,k->ik", "ij,jk,kl->il"],
)  # fmt: skip
def test_einsum_that_is_no_dense_layer(equation):
    with pytest.raises(ConversionError, match="no dense layer"):
        from_onnx(make(f'y = Einsum<equation="{equation}">(x, w)', w=(4, 4)))

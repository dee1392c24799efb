"""`from_state_dict`: mappings and files, the order of layers, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import DATA, grid

import fastlayer as fl


def weights(*names, sizes=None, bias=True):
    """Layers of these names one after the other, from 2 features to 3, 4 and so on."""
    sizes = sizes or range(2, 3 + len(names))
    found = {}
    for i, (name, k, n) in enumerate(zip(names, sizes, sizes[1:], strict=False)):
        found[f"{name}.weight"] = grid(n, k) + np.float32(i)
        if bias:
            found[f"{name}.bias"] = grid(n) - np.float32(i)
    return found


def assert_layers(net, state, names):
    """The weights are those of these layers, in this order."""
    for name, layer in zip(names, net, strict=True):
        assert_same_bits(layer.weight, state[f"{name}.weight"])


def read(mapping, **more):
    return fl.from_state_dict(mapping, activation="relu", **more)


def test_layers_activations_and_dtype():
    state = weights("0", "2", "4")
    net = fl.from_state_dict(state, activation="tanh", output_activation="softmax")
    assert [layer.activation.name for layer in net] == ["tanh", "tanh", "softmax"]
    for layer, i in zip(net, (0, 2, 4), strict=True):
        assert_same_bits(layer.weight, state[f"{i}.weight"])
        assert_same_bits(layer.bias, state[f"{i}.bias"])
    wide = {name: a.astype(np.float64) for name, a in state.items()}
    assert read(wide).dtype == np.float64


def test_one_activation_for_each_layer():
    leaky = fl.Activation("leaky_relu", negative_slope=0.2)
    net = fl.from_state_dict(weights("a.0", "a.1", "a.2"), activation=[leaky, np.cos])
    assert [layer.activation for layer in net][:2] == [leaky, np.cos]
    with pytest.raises(ValueError, match="3 activations for 3 layers: give 2"):
        fl.from_state_dict(weights("a", "b", "c"), activation=["relu"] * 3)
    with pytest.raises(ValueError, match="unknown activation 'rellu'"):
        fl.from_state_dict(weights("a"), activation=None, output_activation="rellu")


def test_the_activation_has_to_be_said():
    with pytest.raises(TypeError, match="activation"):
        fl.from_state_dict(weights("0"))


def test_layout():
    state = {name: a.T for name, a in weights("0", "1").items()}
    net = read(state, layout="in_out")
    assert_same_bits(net[0].weight, state["0.weight"].T)
    with pytest.raises(fl.ConversionError, match=r"layer '0'.*layout='out_in'"):
        read(state)
    with pytest.raises(ValueError, match="layout"):
        read(state, layout="guess")


def test_a_single_layer_without_a_prefix():
    net = read({"weight": grid(2, 3), "bias": grid(2)})
    assert (net.in_features, net.out_features) == (3, 2)


# ----------------------------------------------------------------------------- order


@pytest.mark.parametrize(
    "names",
    [
        ["0", "2", "10"],
        ["fc1", "fc2", "fc3"],
        ["body.9.linear", "body.10.linear", "body.11.linear"],
        ["zeta", "beta", "alpha"],  # a mapping tells its order
    ],
)
def test_the_order_of_a_mapping(names):
    net = read(weights(*names, sizes=[3] * 4))
    for i, layer in enumerate(net):
        assert_same_bits(layer.weight, grid(3, 3) + np.float32(i))


def alphabetical(mapping):
    return {name: mapping[name] for name in sorted(mapping)}


@pytest.mark.parametrize("bias", [True, False])
def test_sorted_names_are_put_in_the_order_of_their_numbers(bias):
    net = read(alphabetical(weights("0", "2", "10", sizes=[3] * 4, bias=bias)))
    for i, layer in enumerate(net):
        assert_same_bits(layer.weight, grid(3, 3) + np.float32(i))


def test_sorted_names_without_numbers_need_sizes_that_fit_one_way():
    net = read(alphabetical(weights("hidden", "middle", "head", sizes=[4, 9, 5, 2])))
    assert [layer.in_features for layer in net] == [4, 9, 5]
    net = read(alphabetical(weights("c", "b", "a", sizes=[1, 2, 3, 2])))  # c can only be first
    assert [layer.in_features for layer in net] == [1, 2, 3]
    square = alphabetical(weights("hidden", "middle", "head", sizes=[4, 4, 4, 4]))
    with pytest.raises(fl.ConversionError, match=r"sorted by name.*layers=\[\.\.\.\]"):
        read(square)
    net = read(square, layers=["hidden", "middle", "head"])
    for i, layer in enumerate(net):
        assert_same_bits(layer.weight, grid(4, 4) + np.float32(i))


@pytest.mark.parametrize("sizes", [[4, 9, 4, 2], [4, 9, 4, 9], [4, 9, 4]])
def test_sizes_that_fit_in_several_ways_are_no_order(sizes):
    state = alphabetical(weights(*"cab"[: len(sizes) - 1], sizes=sizes))
    with pytest.raises(fl.ConversionError, match="sorted by name"):
        read(state)


def test_numbers_against_the_order_of_the_mapping():
    with pytest.raises(fl.ConversionError, match=r"numbers say \['fc1', 'fc2'\]"):
        read(weights("fc2", "fc1", sizes=[3, 3, 3]))


def test_layers_that_do_not_follow_each_other():
    state = {**weights("a"), "b.weight": grid(2, 7)}
    with pytest.raises(fl.ConversionError, match=r"layer 'b': takes 7 features.*gives 3"):
        read(state)
    with pytest.raises(fl.ConversionError, match=r"there is no 'c'; it has 'a', 'b'"):
        read(state, layers=["a", "c"])
    with pytest.raises(fl.ConversionError, match="names a layer twice"):
        read(weights("a", sizes=[3, 3]), layers=["a", "a"])
    assert len(read(state, layers=["a"])) == 1
    assert len(read(state, layers=("b",))) == 1


# ----------------------------------------------------------------------------- one of several

TWO = {
    "a network and its target": ["q.0", "q.2", "q_target.0", "q_target.2"],
    "actor and critic": ["actor.fc1", "actor.fc2", "critic.fc1", "critic.fc2"],
    "model and its average": ["module.net.0", "module.net.2", "ema.net.0", "ema.net.2"],
    "a copy beside its source": ["net.0", "net.2", "0", "2"],
    "body and head": ["body.0", "body.2", "body.4", "value"],
    "numbered names": ["fc1", "fc2", "target_fc1", "target_fc2"],
    "members of an ensemble": ["a1.fc", "a2.fc", "b1.fc", "b2.fc"],
    "twins that differ in a number": ["Q1.0", "Q1.2", "Q2.0", "Q2.2"],
    "twins with an end of another name": ["q1.fc", "q1.out", "q2.fc", "q2.out"],
    "twins in a list": ["qs.0.net.0", "qs.0.net.2", "qs.1.net.0", "qs.1.net.2"],
    "twins without modules": ["q1_fc", "q1_out", "q2_fc", "q2_out"],
}
ONE = {
    "attributes": ["fc1", "fc2", "hidden", "out"],
    "blocks": ["blocks.0.fc", "blocks.1.fc", "blocks.2.fc", "blocks.3.fc"],
    "numbered modules": ["block1.linear", "block2.linear", "block3.linear", "block4.linear"],
    "nested": ["0", "2.0", "2.2", "3"],
    "below one module": ["module.net.0", "module.net.2", "module.net.4.0", "module.net.4.2"],
}


@pytest.mark.parametrize("kind", TWO)
@pytest.mark.parametrize("sort", [False, True])
def test_layers_of_several_modules_are_chosen_and_never_guessed(kind, sort):
    names = TWO[kind]
    state = weights(*names, sizes=[3] * 5)
    state = alphabetical(state) if sort else state
    with pytest.raises(fl.ConversionError, match=r"more than one network; layers=\[\.\.\.\]"):
        read(state)
    for some in (names[:2], names[2:], names[::-1]):
        assert_layers(read(state, layers=some), state, some)


@pytest.mark.parametrize("kind", ONE)
def test_layers_of_one_module_are_one_network(kind):
    state = weights(*ONE[kind], sizes=[3] * 5)
    assert_layers(read(state), state, ONE[kind])


@pytest.mark.parametrize("prefix", ["actor", "actor.", "agent.critic"])
def test_a_prefix_chooses(prefix):
    actor, critic = ["actor.0", "actor.2"], ["agent.critic.0", "agent.critic.2"]
    state = weights(*actor, *critic, sizes=[3] * 5)
    names = actor if prefix.startswith("actor") else critic
    state |= {"log_std": grid(3), "step": 7, "actors.0.weight": grid(9, 9)}
    for net in (read(state, prefix=prefix), read(state, prefix=prefix, layers=["0", "2"])):
        assert_layers(net, state, names)
    with pytest.raises(fl.ConversionError, match=r"nothing below 'act'; it has 'actor\.0\.weight'"):
        read(state, prefix="act")


def test_what_was_not_asked_for_does_not_matter():
    odd = {"log_std": grid(3), "conv.weight": grid(2, 2, 2, 2), "half.weight": grid(2, 2) > 0}
    odd |= {"epoch": 3, 7: "seven", "optimiser": {"state": {}}, "a.b.c.weight": grid(5)}
    state = odd | weights("fc1", "fc2", sizes=[3] * 3)
    with pytest.raises(fl.ConversionError):
        read(state)
    assert_same_bits(read(state, layers=["fc2"])[0].weight, state["fc2.weight"])


def test_halves_are_widened():
    state = weights("0", "2", sizes=[3] * 3)
    some = state | {"0.weight": state["0.weight"].astype(np.float16)}
    net = read(some)
    assert net.dtype == np.float32
    assert_same_bits(net[0].weight, some["0.weight"].astype(np.float32))
    mixed = {name: value.astype(np.float64) for name, value in state.items()}
    mixed |= {"2.bias": some["0.weight"][0]}
    with pytest.raises(
        fl.ConversionError, match=r"'2\.bias' is float16 and '0\.weight' is float64"
    ):
        read(mixed)


# ----------------------------------------------------------------------------- refusals

BATCH = {"weight": 3, "bias": 3, "running_mean": 3, "running_var": 3}
REFUSED = {
    "batch norm": ({f"bn.{k}": grid(n) for k, n in BATCH.items()}, "layer 'bn'.*batch norm.*eps"),
    "layer norm": (
        {"ln.weight": grid(3), "ln.bias": grid(3)},
        "layer 'ln': is a norm, such as LayerNorm.*eps.*from_torch",
    ),
    "batch norm among others": (
        {**weights("fc1", "fc2"), **{f"bn1.{k}": grid(n) for k, n in BATCH.items()}},
        "layer 'bn1'.*batch norm.*eps",
    ),
    "attention": (
        {"a.in_proj_weight": grid(9, 3)},
        "layer 'a'.*is a layer of attention.*framework",
    ),
    "convolution": (
        {"c.weight": grid(2, 1, 3, 3)},
        "layer 'c'.*is a convolution.*with its framework",
    ),
    "lstm": (
        {"lstm.weight_ih_l0": grid(8, 2)},
        "layer 'lstm'.*is a recurrent layer.*with its framework",
    ),
    "bias alone": ({"a.bias": grid(3)}, "layer 'a'.*not a dense layer"),
    "bias of other size": ({"a.weight": grid(2, 3), "a.bias": grid(3)}, r"layer 'a'.*\(3,\)"),
    "bias with two axes": ({"a.weight": grid(2, 3), "a.bias": grid(2, 1)}, "not a vector"),
    "no neurons": ({"a.weight": grid(0, 3)}, "layer 'a'"),
    "integers": ({"a.weight": np.ones((2, 3), int)}, "'a.weight'.*int64.*float32 first"),
    "complex": ({"a.weight": np.ones((2, 3), complex)}, "'a.weight'.*complex128.*float32 first"),
    "two dtypes": ({"a.weight": np.ones((2, 3)), "a.bias": grid(2)}, "'a.bias' is float32"),
    "a dictionary": ({"epoch": 3, "model": weights("0")}, "'epoch' holds int.*key='model'"),
    "a list": ({"a.weight": [[1.0]]}, "'a.weight' holds list"),
    "numbers as names": ({0: grid(2, 3)}, "0 holds ndarray"),
    "nothing": ({}, "no tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_dense_layer_is_refused_by_name(name):
    mapping, message = REFUSED[name]
    with pytest.raises(fl.ConversionError, match=message):
        read(mapping)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="expected a mapping"):
        read(3)
    with pytest.raises(TypeError, match="path"):
        read(b"weights.pt")
    with pytest.raises(ValueError, match=r"unknown suffix '\.npz'.*fl\.load"):
        read("weights.npz")
    with pytest.raises(FileNotFoundError):
        read("/nowhere/weights.pt")


# ----------------------------------------------------------------------------- files


def test_tensors_without_values():
    torch = pytest.importorskip("torch")
    state = torch.nn.Linear(3, 2, device="meta").state_dict()
    with pytest.raises(fl.ConversionError, match="'weight': has no values"):
        fl.from_state_dict(state, activation=None)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_of_pytorch(suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net = read(DATA / f"state_dict{suffix}")
    # What the files were made of; in the .pt, weights are views of larger storages.
    assert_same_bits(net[0].weight, grid(6, 4))
    assert_same_bits(net[0].bias, grid(6))
    assert_same_bits(net[1].weight, grid(6, 5).T)
    assert_same_bits(net[1].bias, grid(100)[3:18:3])
    assert_same_bits(net[2].weight, grid(100)[10:20].reshape(2, 5))
    assert net[2].bias is None
    assert [layer.activation.name for layer in net] == ["relu", "relu", "identity"]


def test_checkpoints():
    with pytest.raises(fl.ConversionError, match=r"'epoch' holds int.*key='model_state_dict'"):
        read(DATA / "checkpoint.pt")
    net = read(DATA / "checkpoint.pt", key="model_state_dict")
    assert_same_bits(net[0].weight, grid(6, 4))
    with pytest.raises(fl.ConversionError, match="no entry 'model'; it has 'epoch'"):
        read(DATA / "checkpoint.pt", key="model")
    with pytest.raises(fl.ConversionError, match="holds a float"):
        read(DATA / "checkpoint.pt", key="lr")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["live", ".pt", ".pth", ".safetensors"])
def test_state_dicts_of_torch(tmp_path, rng, dtype, kind):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(
        nn.Linear(5, 7), nn.ELU(), nn.Sequential(nn.Linear(7, 7, bias=False), nn.ELU()),
        nn.Linear(7, 3), nn.Tanh(),
    ).to(getattr(torch, dtype))  # fmt: skip
    source = state = module.state_dict()
    if kind == ".safetensors":
        source = tmp_path / "w.safetensors"
        pytest.importorskip("safetensors.torch").save_file(state, source)
        layers = ["0", "2.0", "3"]
    elif kind != "live":
        source, layers = tmp_path / f"w{kind}", None
        torch.save(state, source)
    else:
        layers = None
    net = fl.from_state_dict(source, activation="elu", output_activation="tanh", layers=layers)
    assert [p.dtype for p in net] == [dtype] * 3
    same = fl.from_torch(module)
    x = rng.standard_normal((9, 5)).astype(dtype)
    assert_same_bits(net(x), same(x))

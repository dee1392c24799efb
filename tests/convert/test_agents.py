"""Agents of stable-baselines3 (.zip) and skrl (checkpoints): their networks by name.

The files are written here, with the names that the libraries give to the arrays; what the networks
compute is written out in `ref_network`.
"""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from helpers import assert_within, ref_network
from model_files import agent, held, legacy, pickled, pt, word, zipped

import fastlayer as fl

SIZES = {"obs": 5, "act": 3}
PPO = "stable_baselines3.common.policies"
DQN, SAC, TD3 = (f"stable_baselines3.{name}.policies" for name in ("dqn", "sac", "td3"))
RELU = "<class 'torch.nn.modules.activation.ReLU'>"


def arrays(*layers, seed=0):
    """Weights and biases of layers, given as (name, k, n)."""
    rng, found = np.random.default_rng(seed), {}
    for name, k, n in layers:
        found[f"{name}.weight"] = rng.normal(size=(n, k)).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(size=n).astype(np.float32)
    return found


def written(policy, policy_kwargs=None, shape=(5,), kind="Box", gym="gymnasium", **more):
    """What stands in `data` of an agent with this policy."""
    space = {":type:": f"<class '{gym}.spaces.{kind.lower()}.{kind}'>", ":serialized:": "gAWV"}
    space |= {"_shape": list(shape), "dtype": "float32", "low": "[-1. -1.]"}
    return {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": "gAWV", "__module__": policy},
        "policy_kwargs": policy_kwargs or {}, "observation_space": space, "gamma": 0.99, "use_sde": False, **more,
    }  # fmt: skip


def kwargs(**options):
    return {":type:": "<class 'dict'>", ":serialized:": "gAWVYgAAAAAA", **options}


BODIES = [
    (f"mlp_extractor.{net}_net.{i}", k, 8)
    for net in ("policy", "value")
    for i, k in ((0, 5), (2, 8))
]
ACTOR_CRITIC = {
    "log_std": np.zeros(3),
    **arrays(*BODIES, ("action_net", 8, 3), ("value_net", 8, 1)),
}
SHARED = arrays(
    ("mlp_extractor.shared_net.0", 5, 6), ("mlp_extractor.policy_net.0", 6, 8),
    ("action_net", 8, 3), ("value_net", 6, 1),
)  # fmt: skip
Q = [
    (f"{net}.q_net.{i}", k, n)
    for net in ("q_net", "q_net_target")
    for i, k, n in ((0, 5, 8), (2, 8, 8), (4, 8, 3))
]
CRITICS = [
    (f"{net}.{qf}.{i}", k, n)
    for net in ("critic", "critic_target")
    for qf in ("qf0", "qf1", "qf10")
    for i, k, n in ((0, 8, 6), (2, 6, 1))
]
PI = [("actor.latent_pi.0", 5, 8), ("actor.latent_pi.2", 8, 8)]
GAUSSIAN = arrays(*PI, ("actor.mu", 8, 3), ("actor.log_std", 8, 3), *CRITICS)
NOISE = {"actor.log_std": np.zeros((8, 3)), **arrays(*PI, ("actor.mu.0", 8, 3), *CRITICS)}
MU = [
    (f"{net}.mu.{i}", k, n)
    for net in ("actor", "actor_target")
    for i, k, n in ((0, 5, 8), (2, 8, 3))
]
DETERMINISTIC = arrays(*MU, *CRITICS)
TEN = arrays(*((f"q_net.q_net.{2 * i}", 5, 5) for i in range(7)))

POLICY = ["mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net"]
VALUE = ["mlp_extractor.value_net.0", "mlp_extractor.value_net.2", "value_net"]
LATENT = ["actor.latent_pi.0", "actor.latent_pi.2"]
CLIPPED = ("hardtanh", {"min_val": -2.0, "max_val": 2.0})
# The tensors, what stands in `data`, and the layers with the activation of each.
NETWORKS = {
    "PPO, actor": (ACTOR_CRITIC, written(PPO), "actor", POLICY, "tanh", None),
    "PPO, critic": (ACTOR_CRITIC, written(PPO), "critic", VALUE, "tanh", None),
    "A2C with an optimiser": (ACTOR_CRITIC, written(PPO, kwargs(optimizer_class="<class 'torch.optim.rmsprop.RMSprop'>")), "actor", POLICY, "tanh", None),
    "PPO with ReLU": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=RELU)), "critic", VALUE, "relu", None),
    "PPO with leaky ReLU": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=RELU.replace("ReLU", "LeakyReLU"))), "critic", VALUE, "leaky_relu", None),
    "PPO without activations": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn="<class 'torch.nn.modules.linear.Identity'>")), "critic", VALUE, None, None),
    "PPO with shared layers": (SHARED, written(PPO, gym="gym"), "actor", ["mlp_extractor.shared_net.0", "mlp_extractor.policy_net.0", "action_net"], "tanh", None),
    "PPO with a shared body": (SHARED, written(PPO), "critic", ["mlp_extractor.shared_net.0", "value_net"], "tanh", None),
    "PPO without hidden layers": (arrays(("action_net", 5, 3), ("value_net", 5, 1)), written(PPO), "actor", ["action_net"], "tanh", None),
    "PPO with squashed noise": (ACTOR_CRITIC, written(PPO, {"squash_output": True}, use_sde=True), "actor", POLICY, "tanh", "tanh"),
    "PPO's critic is never squashed": (ACTOR_CRITIC, written(PPO, {"squash_output": True}, use_sde=True), "critic", VALUE, "tanh", None),
    "MaskablePPO": (ACTOR_CRITIC, written("sb3_contrib.common.maskable.policies"), "actor", POLICY, "tanh", None),
    "DQN": (arrays(*Q), written(DQN), "q_net", [f"q_net.q_net.{i}" for i in (0, 2, 4)], "relu", None),
    "DQN's target": (arrays(*Q), written(DQN), "q_net_target", [f"q_net_target.q_net.{i}" for i in (0, 2, 4)], "relu", None),
    "more than ten numbers": (TEN, written(DQN), "q_net", [f"q_net.q_net.{2 * i}" for i in range(7)], "relu", None),
    "SAC, actor": (GAUSSIAN, written(SAC), "actor", [*LATENT, "actor.mu"], "relu", "tanh"),
    "SAC, second critic": (GAUSSIAN, written(SAC), "critic.qf1", ["critic.qf1.0", "critic.qf1.2"], "relu", None),
    "SAC, eleventh critic": (GAUSSIAN, written(SAC), "critic_target.qf10", ["critic_target.qf10.0", "critic_target.qf10.2"], "relu", None),
    "SAC with noise": (NOISE, written(SAC, use_sde=True), "actor", [*LATENT, "actor.mu.0"], "relu", (CLIPPED, "tanh")),
    "SAC with noise and a bound": (NOISE, written(SAC, {"clip_mean": 0.5}, use_sde=True), "actor", [*LATENT, "actor.mu.0"], "relu", (("hardtanh", {"min_val": -0.5, "max_val": 0.5}), "tanh")),
    "SAC with noise and no bound": (GAUSSIAN, written(SAC, {"clip_mean": 0.0}, use_sde=True), "actor", [*LATENT, "actor.mu"], "relu", "tanh"),
    "TD3, actor": (DETERMINISTIC, written(TD3), "actor", ["actor.mu.0", "actor.mu.2"], "relu", "tanh"),
    "TD3's target": (DETERMINISTIC, written(TD3), "actor_target", ["actor_target.mu.0", "actor_target.mu.2"], "relu", "tanh"),
    "TD3 without hidden layers": (arrays(("actor.mu.0", 5, 3), *CRITICS), written(TD3), "actor", ["actor.mu.0"], "relu", "tanh"),
    "several axes": (ACTOR_CRITIC | arrays(("mlp_extractor.policy_net.0", 6, 8)), written(PPO, shape=(2, 3)), "actor", POLICY, "tanh", None),
    "bits": (ACTOR_CRITIC, written(PPO, kind="MultiBinary", gym="gym"), "actor", POLICY, "tanh", None),
}  # fmt: skip


def layers_of(state, names, activation, output):
    behind = output if isinstance(output, tuple) else (output,)
    first = behind[0] if isinstance(behind[0], tuple) else (behind[0],)
    hidden = [(state[f"{n}.weight"], state[f"{n}.bias"], activation) for n in names[:-1]]
    last = (state[f"{names[-1]}.weight"], state[f"{names[-1]}.bias"], *first)
    return [*hidden, last, *((np.eye(3, dtype=np.float32), None, name) for name in behind[1:])]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_stable_baselines3(tmp_path, rng, name):
    state, settings, network, names, activation, output = NETWORKS[name]
    path = tmp_path / "agent.zip"
    path.write_bytes(agent(state, **settings))
    net = fl.load(path, network=network)
    x = rng.normal(size=(7, state[f"{names[0]}.weight"].shape[1])).astype(np.float32)
    exact, worst = ref_network(x, layers_of(state, names, activation, output), np.float32)
    assert_within(net(x), exact, worst)
    shape = settings["observation_space"]["_shape"]
    if len(shape) > 1:
        assert_within(net(x.reshape(7, *shape)), exact, worst)


@pytest.mark.parametrize(
    "name", [n for n, case in NETWORKS.items() if not isinstance(case[-1], tuple)]
)
def test_weights_alone_of_stable_baselines3(tmp_path, rng, name):
    """From policy.pth alone, as repositories hold it too, and in PyTorch's format before 1.6."""
    state, settings, network, names, activation, output = NETWORKS[name]
    path, inner = tmp_path / "agent.zip", tmp_path / "policy.pth"
    views, data = held(state)
    old = legacy(pickled(views), data)
    inner.write_bytes(old)
    path.write_bytes(agent(old, **settings))
    x = rng.normal(size=(7, state[f"{names[0]}.weight"].shape[1])).astype(np.float32)
    right = ref_network(x, layers_of(state, names, activation, output), np.float32)
    for source in (path, inner, state):
        net = fl.from_state_dict(
            source, network=network, activation=activation, output_activation=output
        )
        assert_within(net(x), *right)
        same = fl.from_state_dict(
            source, layers=names, activation=activation, output_activation=output
        )
        assert_within(same(x), *right)


# ----------------------------------------------------------------------------- refusals

CNN = {
    "features_extractor.cnn.0.weight": np.ones((4, 1, 2, 2)),
    "features_extractor.linear.0.weight": np.ones((5, 4)),
    **ACTOR_CRITIC,
}
PARTIAL = "functools.partial(<class 'torch.nn.modules.activation.ReLU'>, inplace=True)"
LIST = r"network= chooses one of its networks: 'actor', 'critic'$"
ALONE = r"fl\.from_state_dict\(path, network='actor', activation=\.\.\., output_activation=\.\.\.\)"
REFUSED = {
    "no name": (ACTOR_CRITIC, written(PPO), None, LIST),
    "another name": (ACTOR_CRITIC, written(PPO), "value", r"no network 'value'.*it has 'actor', 'critic'$"),
    "another algorithm's name": (DETERMINISTIC, written(TD3), "critic", "it has 'actor', 'actor_target', 'critic.qf0', 'critic.qf1', 'critic.qf10', 'critic_target.qf0'"),
    "images": (CNN, written(PPO), "actor", rf"'features_extractor\.cnn\.0\.weight'.*in front.*layers={re.escape(str(POLICY))}"),
    "images for one of two": ({n.replace("features", "vf_features"): a for n, a in CNN.items()}, written(PPO), "actor", "vf_features_extractor.*in front"),
    "images of an actor": ({"actor.features_extractor.cnn.0.weight": np.ones((4, 1, 2, 2)), **GAUSSIAN}, written(SAC), "actor", "actor.features_extractor.*in front"),
    "recurrent": ({"lstm_actor.weight_ih_l0": np.ones((8, 5)), **ACTOR_CRITIC}, written(PPO), "actor", "lstm_actor.*in front"),
    "a dictionary of observations": (ACTOR_CRITIC, written(PPO, kind="Dict"), "actor", f"observation_space: is 'Dict'.*encoded.*{ALONE}"),
    "encoded observations": (ACTOR_CRITIC, written(PPO, kind="Discrete"), "actor", f"observation_space: is 'Discrete'.*encoded.*{ALONE}"),
    "no observations": (ACTOR_CRITIC, written(PPO, observation_space=None), "actor", f"observation_space: is None.*{ALONE}"),
    "observations without a shape": (ACTOR_CRITIC, written(PPO, shape=[-5]), "actor", rf"shape \[-5\].*{ALONE}"),
    "observations of another shape": (ACTOR_CRITIC, written(PPO, shape=(6,)), "actor", rf"shape \(6,\).*{ALONE}"),
    "bytes": (ACTOR_CRITIC, written(PPO, observation_space={":type:": "<class 'gymnasium.spaces.box.Box'>", "_shape": [5, 1, 1], "dtype": "uint8"}), "actor", "is an image"),
    "a policy of somebody else": (ACTOR_CRITIC, written("__main__"), "actor", f"policy_class: is of __main__.*{ALONE}"),
    "no policy": (ACTOR_CRITIC, written(PPO, policy_class=7), "actor", f"policy_class: is of None.*{ALONE}"),
    "an extractor of somebody else": (ACTOR_CRITIC, written(PPO, kwargs(features_extractor_class="<class '__main__.Mine'>")), "actor", f"features_extractor_class: is .*Mine.*{ALONE}"),
    "a function as activation": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn="<function <lambda> at 0x7f>")), "actor", f"activation_fn: is '<function.*{ALONE}"),
    "a partial activation": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=PARTIAL)), "actor", "activation_fn: is .*partial"),
    "an activation with weights": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=RELU.replace("ReLU", "PReLU"))), "actor", "activation_fn: is .*PReLU"),
    "an activation with an axis": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=RELU.replace("ReLU", "Softmax"))), "actor", "activation_fn: is .*Softmax"),
    "an activation that is a number": (ACTOR_CRITIC, written(PPO, kwargs(activation_fn=3)), "actor", "activation_fn: is 3"),
    "options as a pickle alone": (ACTOR_CRITIC, written(PPO, kwargs()), "actor", f"policy_kwargs: are not there as text.*{ALONE}"),
    "a bound that is text": (NOISE, written(SAC, {"clip_mean": "2"}, use_sde=True), "actor", "clip_mean: is '2'"),
    "a bound without noise": (NOISE, written(SAC), "actor", "clip_mean: is 2.0 with use_sde=False"),
    "names that are no numbers": ({n.replace("net.0", "net.first"): a for n, a in ACTOR_CRITIC.items()}, written(PPO), "actor", "no network 'actor'.*layers= choose"),
    "a norm in between": ({**ACTOR_CRITIC, "mlp_extractor.policy_net.1.weight": np.ones(8)}, written(PPO), "actor", r"layer 'mlp_extractor\.policy_net\.1'.*is a norm"),
    "nothing that is known": ({"a.weight": np.ones((3, 5))}, written(PPO), "actor", "no network 'actor' of an agent"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_does_not_tell_is_refused(tmp_path, name):
    state, settings, network, message = REFUSED[name]
    path = tmp_path / "agent.zip"
    path.write_bytes(agent(state, **settings))
    with pytest.raises(fl.ConversionError, match=message) as caught:
        fl.load(path, network=network)
    assert str(caught.value).startswith(str(path))


def test_the_dense_layers_behind_an_extractor_are_read_as_the_message_says(tmp_path):
    path = tmp_path / "agent.zip"
    path.write_bytes(agent(CNN, **written(PPO)))
    net = fl.from_state_dict(path, layers=POLICY, activation="tanh")
    assert [layer.in_features for layer in net] == [5, 8, 8]


def test_a_layer_that_is_not_read_is_not_left_out(tmp_path):
    """Without it the sizes would fit as well."""
    views, data = held(ACTOR_CRITIC)
    odd = b"ctorch._utils\n_rebuild_qtensor\n(K\x01tR"
    views |= {f"mlp_extractor.policy_net.2.{name}": odd for name in ("weight", "bias")}
    path = tmp_path / "agent.zip"
    path.write_bytes(agent(pt(pickled(views), data), **written(PPO)))
    with pytest.raises(fl.ConversionError, match=r"policy_net\.2\.weight' holds an object of"):
        fl.load(path, network="actor")


NO_AGENT = {
    "a file of torch.save": (pt(b"\x80\x02}."), r"policy\.pth: is missing.*torch\.save.*\.pt"),
    "stable-baselines 2": (zipped({"data": b"{}", "parameters": b"", "parameter_list": b"[]"}), "stable-baselines 2.*TensorFlow"),
    "another zip": (zipped({"a": b"b"}), r"policy\.pth: is missing"),
    "no zip": (b"hello", "archive"),
    "no policy": (agent(b"hello", **written(PPO)), r"policy\.pth: format: is not a zip"),
    "a damaged policy": (agent(pt(b"\x80\x02}"), **written(PPO)), r"policy\.pth: pickle: is cut short"),
    "no JSON": (agent(ACTOR_CRITIC, text=b"{"), "data: is not JSON"),
    "a list": (agent(ACTOR_CRITIC, text=b"[]"), "data: is not a JSON object"),
    "a name twice": (agent(ACTOR_CRITIC, text=b'{"use_sde": true, "use_sde": false}'), "data: the name 'use_sde' is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_AGENT)
def test_what_is_no_agent(tmp_path, name):
    data, message = NO_AGENT[name]
    path = tmp_path / "agent.zip"
    path.write_bytes(data)
    with pytest.raises(fl.ModelFileError, match=message) as caught:
        fl.load(path, network="actor")
    assert caught.value.path == str(path)


def test_no_data(tmp_path):
    path = tmp_path / "agent.zip"
    views, data = held(ACTOR_CRITIC)
    path.write_bytes(zipped({"policy.pth": pt(pickled(views), data)}))
    with pytest.raises(fl.ModelFileError, match="data: is missing"):
        fl.load(path, network="actor")
    assert fl.from_state_dict(path, network="actor", activation="tanh").in_features == 5


def test_names_of_networks_are_for_agents(tmp_path):
    path = tmp_path / "model.npz"
    fl.Network(["relu"]).save(path)
    with pytest.raises(ValueError, match=r"network=.*\.zip"):
        fl.load(path, network="actor")
    for more in ({"layers": ["a"]}, {"prefix": "a"}):
        with pytest.raises(ValueError, match="without prefix= and layers="):
            fl.from_state_dict(ACTOR_CRITIC, network="actor", activation="tanh", **more)


def test_pickles_say_what_becomes_of_the_statistics(tmp_path, rng):
    """The advice, followed: (x - mean) / sqrt(var + eps) in front, clipped."""
    with pytest.raises(ValueError, match=r"VecNormalize.*fl\.BatchNorm\(n, v\.epsilon.*hardtanh"):
        fl.load(tmp_path / "vecnormalize.pkl")
    mean, var, x = rng.normal(size=5), rng.uniform(1, 2, 5), rng.normal(size=(7, 5)) * 9
    state = {n: a.astype(np.float64) for n, a in ACTOR_CRITIC.items()}
    net = fl.from_state_dict(state, network="actor", activation="tanh")
    front = fl.BatchNorm(5, 1e-8, running_mean=mean, running_var=var, dtype=np.float64)
    whole = fl.Network([front, fl.Activation("hardtanh", min_val=-10.0, max_val=10.0), *net])
    scaled = np.clip((x - mean) / np.sqrt(var + 1e-8), -10, 10)
    assert np.allclose(whole(x), net(scaled), rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------------------- skrl

BODY = [("net_container.0", 5, 8), ("net_container.2", 8, 8)]
MODELS = {
    "policy": ({**arrays(*BODY, ("policy_layer", 8, 3)), "log_std_parameter": np.zeros(3)}, "policy", ["net_container.0", "net_container.2", "policy_layer"]),
    "value": (arrays(*BODY, ("value_layer", 8, 1)), "value", ["net_container.0", "net_container.2", "value_layer"]),
    "shared, policy": ({**arrays(*BODY, ("policy_layer", 8, 3), ("value_layer", 8, 1)), "log_std_parameter": np.zeros(3)}, "policy", ["net_container.0", "net_container.2", "policy_layer"]),
    "shared, value": ({**arrays(*BODY, ("policy_layer", 8, 3), ("value_layer", 8, 1)), "log_std_parameter": np.zeros(3)}, "value", ["net_container.0", "net_container.2", "value_layer"]),
    "one output layer": (arrays(*BODY, ("output_layer", 8, 1)), "target_critic_1", ["net_container.0", "net_container.2", "output_layer"]),
    "all in the body": ({**arrays(*BODY, ("net_container.4", 8, 3)), "log_std_parameter": np.zeros(3)}, "policy", ["net_container.0", "net_container.2", "net_container.4"]),
    "sequences": (arrays(("net.0", 5, 8), ("mean_net.0", 8, 3), ("value_net.0", 8, 4), ("value_net.2", 4, 1)), "value", ["net.0", "value_net.0", "value_net.2"]),
    "written by hand": (arrays(("net.0", 5, 8), ("mean_layer", 8, 3), ("value_layer", 8, 1)), "policy", ["net.0", "mean_layer"]),
}  # fmt: skip


def checkpoint(role, state):
    """As `agent.save` writes it."""
    scaler = {
        "running_mean": np.zeros(5),
        "running_variance": np.ones(5),
        "current_count": np.ones(()),
    }
    return {
        role: state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "state_preprocessor": scaler,
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["mapping", "file"])
def test_networks_of_skrl(tmp_path, rng, name, kind):
    state, role, names = MODELS[name]
    source = checkpoint(role, state)
    if kind == "file":
        torch = pytest.importorskip("torch")
        source = tmp_path / "agent.pt"
        tensors = {n: torch.from_numpy(np.asarray(a)) for n, a in state.items()}
        torch.save(checkpoint(role, tensors), source)
    net = fl.from_state_dict(source, network=role, activation="elu", output_activation="tanh")
    x = rng.normal(size=(7, 5)).astype(np.float32)
    assert_within(net(x), *ref_network(x, layers_of(state, names, "elu", "tanh"), np.float32))


def test_several_networks_are_listed():
    policy, value = MODELS["policy"][0], MODELS["value"][0]
    both = {**checkpoint("policy", policy), "value": value}
    for source, message in (
        (both, r"'policy' holds dict.*network= chooses one of 'policy', 'value'$"),
        (ACTOR_CRITIC, r"more than one network.*network= one of 'actor', 'critic'$"),
    ):
        with pytest.raises(fl.ConversionError, match=message):
            fl.from_state_dict(source, activation="elu")
    with pytest.raises(fl.ConversionError, match=r"no network 'critic'.*it has 'policy', 'value'$"):
        fl.from_state_dict(both, network="critic", activation="elu")


@pytest.mark.parametrize(
    "layers",
    [
        [
            ("net_container.0", 5, 8),
            ("body_container.0", 5, 8),
            ("policy_layer", 8, 3),
        ],  # two bodies
        [("net_container.0", 5, 8), ("net.0", 5, 8), ("policy_layer", 8, 3)],
        [("net_container.0", 5, 8), ("policy_layer", 8, 3), ("mean_layer", 8, 3)],  # two heads
        [("net_container.0", 5, 8), ("value_layer", 8, 3)],  # another's
        [("net_container.first", 5, 8), ("policy_layer", 8, 3)],
        [("policy_layer", 8, 3)],
    ],
)
def test_models_of_an_unknown_form_have_no_name(layers):
    with pytest.raises(fl.ConversionError, match=r"no network 'policy'.*key=, prefix= and layers="):
        fl.from_state_dict(
            checkpoint("policy", arrays(*layers)), network="policy", activation="elu"
        )


def test_an_agent_beside_other_things(tmp_path):
    """`key` and `network` together."""
    net = fl.from_state_dict(
        {"epoch": 3, "model": ACTOR_CRITIC}, key="model", network="critic", activation="tanh"
    )
    assert net[0].in_features == 5
    with pytest.raises(fl.ConversionError, match="no entry 'agent'"):
        fl.from_state_dict(
            {"model": ACTOR_CRITIC}, key="agent", network="critic", activation="tanh"
        )


def test_pickles_in_data_are_text(tmp_path):
    """Nothing looks into them, also where they would be run."""
    trace = tmp_path / "executed"
    bomb = b"\x80\x02cposix\nsystem\n(" + word(f"touch {trace}") + b"tR."
    settings = json.loads(
        json.dumps(written(PPO, kwargs(activation_fn=RELU))).replace(
            "gAWV", base64.b64encode(bomb).decode()
        )
    )
    path = tmp_path / "agent.zip"
    path.write_bytes(agent(ACTOR_CRITIC, **settings))
    assert fl.load(path, network="actor")[0].activation.name == "relu"
    assert not trace.exists()

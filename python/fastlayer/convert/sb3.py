"""Networks from agents of stable-baselines3, .zip. Neither it nor PyTorch is needed."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from fastlayer.convert._activations import TORCH
from fastlayer.convert._agents import find, networks
from fastlayer.convert.state_dict import from_state_dict
from fastlayer.errors import ConversionError
from fastlayer.files.model_file import ModelFile
from fastlayer.files.reading import MOST_AXES
from fastlayer.files.sb3 import settings, stored
from fastlayer.functions.activation import Activation
from fastlayer.network.network import Network
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from os import PathLike

# Where the library's policies are defined, and the activation that they have by default.
_POLICIES = {
    "stable_baselines3.common.policies": "Tanh",
    "stable_baselines3.dqn.policies": "ReLU",
    "stable_baselines3.sac.policies": "ReLU",
    "stable_baselines3.td3.policies": "ReLU",
    "sb3_contrib.common.maskable.policies": "Tanh",
    "sb3_contrib.qrdqn.policies": "ReLU",
    "sb3_contrib.tqc.policies": "ReLU",
}
_SQUASHED = ("stable_baselines3.sac.policies", "sb3_contrib.tqc.policies")
_TORCH_CLASS = re.compile(r"<class 'torch\.nn\.modules\.(?:activation|linear)\.(\w+)'>")
_SPACE = re.compile(r"<class 'gym(?:nasium)?\.spaces\.\w+\.(\w+)'>")
_FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"


def load_sb3(path: str | PathLike[str] | ModelFile, network: str | None = None) -> Network:
    """Read a network of an agent by its name; see `fastlayer.load`."""
    given = path if isinstance(path, ModelFile) else ModelFile(path)
    place = given.name
    with stored(given) as content:
        if network is None:
            names = ", ".join(map(repr, networks(content))) or "none that is known"
            why = f"holds an agent; network= chooses one of its networks: {names}"
            raise ConversionError(place, why)
        _, layers = find(content, network, place)
    return _Agent(given, network, layers).network()


class _Agent:
    """What the settings of an agent say of one of its networks."""

    def __init__(self, given: ModelFile, network: str, layers: list[str]) -> None:
        self._given, self._network, self._last = given, network, layers[-1]
        self._settings = settings(given)
        self._options = self._object("policy_kwargs")
        self._policy = str(self._object("policy_class").get("__module__"))

    def network(self) -> Network:
        if self._policy not in _POLICIES:
            raise self._doubt("data: policy_class", f"is of {self._policy:.60}")
        extractor = self._options.get("features_extractor_class", _FLATTEN)
        if extractor != _FLATTEN:
            raise self._doubt("data: features_extractor_class", f"is {extractor!r:.80}")
        shape = self._shape()
        bounded, output = self._output()
        source: Any = self._given  # whose content is there by now
        net = from_state_dict(
            source,
            network=self._network,
            activation=self._activation(),
            output_activation=bounded or output,
        )
        with_action = ".qf" in self._network  # the features of the observation, then the action
        if not with_action and net.in_features != prod(shape):
            raise self._doubt("data: observation_space", f"has the shape {shape}")
        front = [Flatten()] * (len(shape) > 1 and not with_action)
        behind = [Activation(output)] if bounded and output else []
        return Network([*front, *net, *behind]) if front or behind else net

    def _object(self, name: str) -> dict[str, Any]:
        found = self._settings.get(name)
        return found if isinstance(found, dict) else {}

    def _doubt(self, place: str, why: str) -> ConversionError:
        return ConversionError(
            f"{self._given}: {place}",
            f"{why}, so that the file does not tell what this network computes. Weights alone are "
            f"read with fl.from_state_dict(path, network={self._network!r}, activation=..., "
            "output_activation=...)",
        )

    def _activation(self) -> Activation | None:
        # Options that can't be written as JSON are a pickle, and as text beside it.
        if {*self._options} <= {":type:", ":serialized:"} and self._options:
            raise self._doubt("data: policy_kwargs", "are not there as text")
        default = f"<class 'torch.nn.modules.activation.{_POLICIES[self._policy]}'>"
        named = self._options.get("activation_fn", default)
        match = _TORCH_CLASS.fullmatch(named) if isinstance(named, str) else None
        name = match[1].lower() if match else ""
        if name == "identity":
            return None
        if name not in TORCH or "softmax" in name:
            raise self._doubt("data: activation_fn", f"is {named!r:.80}")
        return TORCH[name].make(lambda _, default: default)

    def _output(self) -> tuple[Activation | None, Literal["tanh"] | None]:
        """Return what bounds the last layer, if anything, and what squashes it."""
        if not self._network.startswith("actor"):
            return None, None
        noise = self._settings.get("use_sde") is True
        if self._last.startswith("action_net"):
            return None, "tanh" if noise and self._options.get("squash_output") is True else None
        if self._policy not in _SQUASHED or not self._last.startswith("actor.mu."):
            return None, "tanh"
        clip = self._options.get("clip_mean", 2.0)
        if not noise or type(clip) not in (int, float) or not clip > 0:
            raise self._doubt("data: clip_mean", f"is {clip!r:.20} with use_sde={noise}")
        return Activation("hardtanh", min_val=-float(clip), max_val=float(clip)), "tanh"

    def _shape(self) -> tuple[int, ...]:
        space = self._object("observation_space")
        kind, shape = space.get(":type:"), space.get("_shape", space.get("shape"))
        match = _SPACE.fullmatch(kind) if isinstance(kind, str) else None
        if match is None or match[1] not in ("Box", "MultiBinary"):
            name = match[1] if match else kind
            encoded = ", which is encoded first" * (match is not None)
            raise self._doubt("data: observation_space", f"is {name!r:.60}{encoded}")
        axes = shape if isinstance(shape, list) and len(shape) <= MOST_AXES else [None]
        if not all(type(n) is int and 0 < n < 1 << 31 for n in axes):
            raise self._doubt("data: observation_space", f"has the shape {shape!r:.60}")
        if len(axes) == 3 and space.get("dtype") == "uint8":
            raise self._doubt(
                "data: observation_space", "is an image, whose bytes are scaled first"
            )
        return tuple(axes)

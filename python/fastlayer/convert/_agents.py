"""Agents of stable-baselines3 and skrl: the networks in their state dicts, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Found = dict[str, tuple[Mapping[Any, Any], list[str]]]  # tensors, and the names of layers

# Of stable-baselines3: modules from the first to the last. One without layers counts for nothing,
# as long as it isn't the last.
_BASELINES = (
    ("actor", ("mlp_extractor.shared_net", "mlp_extractor.policy_net", "action_net")),
    ("critic", ("mlp_extractor.shared_net", "mlp_extractor.value_net", "value_net")),
    ("actor", ("actor.latent_pi", "actor.mu")),
    ("actor_target", ("actor_target.mu",)),
    ("q_net", ("q_net.q_net",)),
    ("q_net_target", ("q_net_target.q_net",)),
    ("quantile_net", ("quantile_net.quantile_net",)),
    ("quantile_net_target", ("quantile_net_target.quantile_net",)),
)
_MOST_CRITICS = 100  # each is looked for among all layers
_ENSEMBLE = re.compile(r"(critic(?:_target)?\.qf[0-9]+)\.[0-9]+")
# Of skrl, whose models lie in a checkpoint by their roles: the body, and the last layer of a policy
# and of what values. A shared model has both.
_BODIES = ("net_container", "net")
_POLICY, _VALUE = ("policy_layer", "mean_layer", "mean_net"), ("value_layer", "value_net")
_HEAD = ("output_layer",)
# In front of the networks of stable-baselines3, and no dense layers.
_IN_FRONT = re.compile(r"(?:^|[._])(?:features_extractor|lstm_actor|lstm_critic)\.")


def networks(content: Any) -> Found:
    """Return the networks of an agent by name; none if it is no agent."""
    if not isinstance(content, Mapping):
        return {}
    found: Found = {}
    layers = _layers(content)
    critics = dict.fromkeys(m[1] for m in map(_ENSEMBLE.fullmatch, layers) if m)
    singles = [(name, (name,)) for name in [*critics][:_MOST_CRITICS]]
    for name, modules in (*_BASELINES, *singles):
        chain = _chain(layers, modules)
        if chain:
            found[name] = content, chain
    chains: dict[tuple[int, bool], list[str]] = {}  # a file can give one model to many names
    for name, state in content.items():
        if isinstance(name, str) and isinstance(state, Mapping):
            policy = "policy" in name
            if (id(state), policy) not in chains:
                chains[id(state), policy] = _role(policy, state)
            if chain := chains[id(state), policy]:
                found[name] = state, chain
    return found


def find(content: Any, network: str, place: str) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the tensors and layers of a network by its name."""
    found = networks(content)
    if network not in found:
        names = ", ".join(map(repr, found))
        has = f"it has {names}" if names else "key=, prefix= and layers= choose elsewhere"
        raise ConversionError(
            place, f"has no network {network!r} of an agent of stable-baselines3 or skrl; {has}"
        )
    state, layers = found[network]
    odd = next((n for n in state if isinstance(n, str) and _IN_FRONT.search(n)), None)
    if odd is not None:
        raise ConversionError(
            f"{place}: {odd!r:.80}",
            "is part of what lies in front of the networks. fastlayer runs dense networks: run "
            "that part with its framework, and read the dense layers behind it with "
            f"fl.from_state_dict(..., layers={layers})",
        )
    return state, layers


def _layers(content: Mapping[Any, Any]) -> list[str]:
    # What is no tensor as well: a layer that can't be read is not left out of a chain.
    names = (name.rpartition(".")[0] for name in content if isinstance(name, str))
    return list(dict.fromkeys(filter(None, names)))


def _below(layers: Iterable[str], module: str) -> list[str]:
    return [name for name in layers if name == module or name.startswith(f"{module}.")]


def _chain(layers: list[str], modules: tuple[str, ...]) -> list[str]:
    """Return the layers in modules one after the other; none if they aren't in plain sequences."""
    if not _below(layers, modules[-1]):
        return []
    chain = []
    for module in modules:
        names = _below(layers, module)
        numbers = [name.removeprefix(module).removeprefix(".") or "0" for name in names]
        if not all(number.isdecimal() for number in numbers):
            return []
        chain += sorted(names, key=lambda name: (len(name), name))
    return chain


def _role(policy: bool, state: Mapping[Any, Any]) -> list[str]:
    """Return the layers of one of skrl's models for the role that it has in the checkpoint."""
    layers = _layers(state)
    there = [m for m in (*_BODIES, *_POLICY, *_VALUE, *_HEAD) if _below(layers, m)]
    mine, other = (_POLICY, _VALUE) if policy else (_VALUE, _POLICY)
    bodies = [module for module in there if module in _BODIES]
    heads = [module for module in there if module in (*mine, *_HEAD)]
    known = {layer for module in there for layer in _below(layers, module)}
    if len(bodies) != 1 or len(heads) > 1 or known != {*layers}:
        return []
    if not heads and any(module in other for module in there):
        return []
    return _chain(layers, (*bodies, *heads))

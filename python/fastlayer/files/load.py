"""Model files: `Network.save` and `load`. The formats live in modules of their own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastlayer.files.save import OWN, split_suffix
from fastlayer.network.network import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import IO

    from fastlayer.network.network import Network


# Suffix -> the source in `convert` that has a function to load it.
_CONVERTERS = {".onnx": "onnx", ".keras": "keras", ".h5": "keras", ".hdf5": "keras", ".zip": "sb3"}
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".jit", ".ptl")
# What may be chosen of a file from each source.
_CHOICES = {"onnx": ("outputs",), "keras": ("outputs", "config"), "sb3": ("network",)}
_PICKLES = (".pkl", ".pickle", ".joblib", ".p")
_PICKLE = (
    ". A pickle would have to be run to be read, and nothing in a file is: load it where it was "
    "written, and convert the object with fl.from_sklearn, fl.from_torch or fl.from_keras. The "
    "statistics of VecNormalize become a part in front of the network: fl.BatchNorm(n, "
    "v.epsilon, running_mean=v.obs_rms.mean, running_var=v.obs_rms.var), then fl.Activation("
    "'hardtanh', min_val=-v.clip_obs, max_val=v.clip_obs)"
)


def load(
    path: str | PathLike[str],
    *,
    mmap: bool = False,
    outputs: str | Sequence[str] | None = None,
    network: str | None = None,
    config: str | PathLike[str] | IO[Any] | dict[str, Any] | None = None,
) -> Network:
    """Read a network from a file. Nothing in the file is executed.

    Parameters
    ----------
    path : path
        The suffix chooses the format. Of `Network.save`: .npz, a NumPy archive, and .safetensors,
        for which the safetensors package must be there; docs/model_files.md describes both.
        Trained elsewhere: .onnx, for which the onnx package must be there, and .keras, .h5,
        .hdf5, and .zip of stable-baselines3, which need nothing.
    mmap : bool
        Map a .safetensors file instead of reading it: the weights go from the page cache, which
        all processes share, straight into the layers' panels. Those are copies of each process,
        or of the process that others were forked from; nothing else is copied, and nothing
        stays mapped. Not possible with the other formats.
    outputs : str or list of str, optional
        What is wanted of several outputs of an .onnx, .keras or .h5 file; what they don't need is
        left out, inputs too. One name makes a network that gives one array.
    network : str, optional
        Which network of an agent, for .zip: "actor", "critic", "critic.qf0", "q_net". An actor
        gives what the policy predicts before it is scaled or clipped to the action space (of
        discrete actions, their logits), a critic values. It takes observations as the environment
        gave them to the agent; of TD3 and SAC, a critic takes actions between -1 and 1 behind them.
    config : path, str, file or dict, optional
        For weights alone that Keras saved, ``model.save_weights("model.weights.h5")``: the layers
        they belong to, as ``model.to_json()`` returns them: a file with that text, the text, or
        the parsed object.

    Returns
    -------
    Network
        The network, in the dtype of the file's weights. It gives a tuple where the model has
        several outputs, and takes several inputs one after the other: ``net(x, u)``.

    Raises
    ------
    ModelFileError
        The file is damaged or not a model; the message names the file and the place.
    ConversionError
        A model trained elsewhere that can't be converted exactly.
    ValueError
        Another suffix, ``mmap=True`` with a format that can't be mapped, or an option that does
        not go with the file.
    ImportError
        The package that reads the format is not there.
    OSError
        The file can't be read.

    See Also
    --------
    from_state_dict : Read weights without an architecture, .pt and .safetensors of PyTorch.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import os, tempfile
    >>> net = fl.Network([fl.Layer(4, 2, "relu", rng=0)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(os.path.join(folder, "model.npz"))
    ...     fl.load(os.path.join(folder, "model.npz"))
    Network([
        Layer(4, 2, activation='relu', dtype=float32),
    ])
    """
    name, suffix = split_suffix(path)
    if suffix in _WEIGHTS:
        raise ValueError(
            f"{name}: {suffix} holds weights without an architecture that can be read, be it a state "
            "dict or TorchScript; fl.from_state_dict(path, activation=...) makes a network of dense "
            "layers from them"
        )
    if suffix not in (*OWN, *_CONVERTERS):
        known = ", ".join((*OWN, *_CONVERTERS))
        hint = _PICKLE if suffix in _PICKLES else ""
        raise ValueError(f"{name}: unknown suffix {suffix!r}; model files end in {known}{hint}")
    if mmap and suffix != ".safetensors":
        raise ValueError(
            f"{name}: only .safetensors can be mapped; load without mmap, or save the network as "
            ".safetensors"
        )
    if network is not None and suffix != ".zip":
        raise ValueError(f"{name}: network= chooses one of an agent's, which .zip files hold")
    if suffix in _CONVERTERS:
        source = _CONVERTERS[suffix]
        module = import_module(f"fastlayer.convert.{source}")
        given = {"outputs": outputs, "network": network, "config": config}
        chosen = _chosen(name, source, given)
        net: Network = getattr(module, f"load_{source}")(name, **chosen)
        return net
    _chosen(name, "", {"outputs": outputs, "network": network, "config": config})
    from fastlayer.files.document import from_document

    opened = import_module(OWN[suffix]).opened
    with opened(name, **({"mmap": True} if mmap else {})) as (document, find):
        own: Network = from_document(document, find, PARTS)
        return own


def _chosen(name: str, source: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that were made, all of which a source must know."""
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in _CHOICES.get(source, ()):
            kinds = [k for k, v in _CONVERTERS.items() if option in _CHOICES[v]]
            raise ValueError(f"{name}: {option}= is for {', '.join(kinds)} files")
    return chosen

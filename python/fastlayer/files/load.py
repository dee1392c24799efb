"""Model files: `Network.save` and `load`. The formats live in modules of their own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

from fastlayer.files.model_file import ModelFile
from fastlayer.files.save import OWN
from fastlayer.network.network import PARTS

if TYPE_CHECKING:
    from os import PathLike
    from typing import IO, TypeAlias

    from fastlayer.network.network import Made, Names, Network, Several

    Config: TypeAlias = str | PathLike[str] | IO[Any] | dict[str, Any]


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


@overload
def load(
    path: str | PathLike[str] | IO[bytes],
    *,
    format: str | None = ...,
    mmap: bool = ...,
    outputs: None = ...,
    network: str | None = ...,
    config: Config | None = ...,
) -> Made: ...
@overload
def load(
    path: str | PathLike[str] | IO[bytes],
    *,
    format: str | None = ...,
    mmap: bool = ...,
    outputs: str,
    network: str | None = ...,
    config: Config | None = ...,
) -> Network: ...
@overload
def load(
    path: str | PathLike[str] | IO[bytes],
    *,
    format: str | None = ...,
    mmap: bool = ...,
    outputs: Names,
    network: str | None = ...,
    config: Config | None = ...,
) -> Network[Several]: ...
def load(
    path: str | PathLike[str] | IO[bytes],
    *,
    format: str | None = None,
    mmap: bool = False,
    outputs: str | Names | None = None,
    network: str | None = None,
    config: Config | None = None,
) -> Network[Any]:
    """Read a network from a file. Nothing in the file is executed.

    Parameters
    ----------
    path : path or open binary file
        The suffix of its name chooses the format. Of `Network.save`: .npz, a NumPy archive, and .safetensors,
        for which the safetensors package must be there; docs/model_files.md describes both.
        Trained elsewhere: .onnx, for which the onnx package must be there, and .keras, .h5,
        .hdf5, and .zip of stable-baselines3, which need nothing. An open file, such as an
        ``io.BytesIO``, is read from its position to its end, into memory, and left open; it need not
        be seekable.
    format : str, optional
        The format where the name does not tell it, or tells another: "npz", "safetensors", "onnx",
        "keras", "h5", "zip".
    mmap : bool
        Map a .safetensors file instead of reading it: the weights go from the page cache, which
        all processes share, straight into the layers' panels. Those are copies of each process,
        or of the process that others were forked from; nothing else is copied, and nothing
        stays mapped. Not possible with the other formats, or with an open file.
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
        Another suffix, ``mmap=True`` with a format that can't be mapped, an option that does not
        go with the file, an open file that is closed, at its end, or not for reading.
    TypeError
        Neither a path nor an open binary file.
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
    given = ModelFile(path, format)
    name, suffix = given.name, given.suffix
    if suffix in _WEIGHTS:
        raise ValueError(
            f"{name}: {suffix} holds weights without an architecture that can be read, be it a state "
            "dict or TorchScript; fl.from_state_dict(path, activation=...) makes a network of dense "
            "layers from them"
        )
    if suffix not in (*OWN, *_CONVERTERS):
        hint = _PICKLE if suffix in _PICKLES else ""
        raise given.unknown(f"model files end in {', '.join((*OWN, *_CONVERTERS))}", hint)
    if mmap and given.is_open:
        raise ValueError(f"{name}: is open, and only a file that is named by a path can be mapped")
    if mmap and suffix != ".safetensors":
        raise ValueError(
            f"{name}: only .safetensors can be mapped; load without mmap, or save the network as "
            ".safetensors"
        )
    if network is not None and suffix != ".zip":
        raise ValueError(f"{name}: network= chooses one of an agent's, which .zip files hold")
    source = _CONVERTERS.get(suffix, "")
    chosen = _chosen(name, source, {"outputs": outputs, "network": network, "config": config})
    if source:
        module = import_module(f"fastlayer.convert.{source}")
        net: Network[Any] = getattr(module, f"load_{source}")(given, **chosen)
        return net
    from fastlayer.files.document import from_document

    opened = import_module(OWN[suffix]).opened
    with opened(given, **({"mmap": True} if mmap else {})) as (document, find):
        own: Network[Any] = from_document(document, find, PARTS)
        return own


def _chosen(name: str, source: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that were made, all of which a source must know."""
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in _CHOICES.get(source, ()):
            kinds = [k for k, v in _CONVERTERS.items() if option in _CHOICES[v]]
            raise ValueError(f"{name}: {option}= is for {', '.join(kinds)} files")
    return chosen

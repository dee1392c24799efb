"""Files as Keras writes them, made without Keras; h5py writes the HDF5."""

import io
import json
import zipfile

import numpy as np


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}}


def dense(name, units, activation="linear", **config):
    return layer("Dense", name, units=units, activation=activation, **config)


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}


def write_h5(path, config, weights, version="2.15.0"):
    """Write the .h5 of Keras 2: `weights` is {layer: {weight: array}}."""
    import h5py

    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version
            file.attrs["backend"] = "tensorflow"
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            one = group.create_group(name)
            names = [n if "/" in n else f"{name}/{n}:0" for n in arrays]
            one.attrs["weight_names"] = [n.encode() for n in names]
            for key, a in zip(names, arrays.values(), strict=True):
                one[key] = a
    return path


def weights_file(arrays, folder="layers", **options):
    """Return the bytes of model.weights.h5: `arrays` is {slot of the layer: [array, ...]}."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        for slot, values in arrays.items():
            for i, a in enumerate(values):
                # A folder that ends in a backslash is a part of the name, as on Windows.
                place = f"{folder}{slot}" if folder.endswith("\\") else f"{folder}/{slot}"
                file[f"{place}/vars/{i}"] = a
    return content.getvalue()


def write_keras(path, config, weights, version="3.5.0", compression=zipfile.ZIP_STORED, **more):
    """Write a .keras archive; `weights` are the bytes of its model.weights.h5."""
    members = {
        "metadata.json": json.dumps({"keras_version": version}),
        "config.json": config if isinstance(config, str | bytes) else json.dumps(config),
        "model.weights.h5": weights,
        **more,
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def arrays_for(rng, k, n, dtype=np.float32):
    """Return a kernel (k, n) and a bias (n,)."""
    kernel = rng.standard_normal((k, n)) / np.sqrt(k)
    return kernel.astype(dtype), rng.standard_normal(n).astype(dtype)

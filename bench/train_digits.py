"""Train the digit reader that ships with the package and write python/fastlayer/data/digits.npz.

Needs scikit-learn. Data: "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak
(1998), UCI Machine Learning Repository, CC BY 4.0, as bundled with scikit-learn: 1797 images of
8x8 pixels with values 0 to 16. The seed is fixed and the archive carries no clock, so the same
versions on the same machine write the same bytes again.

    python bench/train_digits.py [PATH]
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # comes with scikit-learn

SEED = 0
HIDDEN = (64, 32)
TEST_IMAGES = 360
PIXEL_MAX = 16  # a power of two: folding the scale into the weights rounds nothing
TARGET = Path(__file__).parents[1] / "python" / "fastlayer" / "data" / "digits.npz"
FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say


def train() -> tuple[MLPClassifier, NDArray[np.uint8], NDArray[np.uint8]]:
    """The trained classifier, and the images and labels that it has not seen."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.images,
        digits.target,
        test_size=TEST_IMAGES,
        stratify=digits.target,
        random_state=SEED,
    )
    model = MLPClassifier(HIDDEN, activation="relu", alpha=1e-2, max_iter=400, random_state=SEED)
    model.fit(train_x.reshape(len(train_x), -1) / PIXEL_MAX, train_y)
    return model, test_x.astype(np.uint8), test_y.astype(np.uint8)


def network_arrays(model: MLPClassifier) -> dict[str, NDArray[np.float32]]:
    """Weights as (n, k), one row per neuron, for pixels 0 to 16 as they are."""
    arrays = {}
    for i, (coef, intercept) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        scale = PIXEL_MAX if i == 0 else 1
        arrays[f"weight{i}"] = np.ascontiguousarray(coef.T / scale, dtype=np.float32)
        arrays[f"bias{i}"] = intercept.astype(np.float32)
    return arrays


def right_answers(
    arrays: dict[str, NDArray[np.float32]], images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> int:
    """How many images the float32 network reads right, in plain NumPy."""
    x = images.reshape(len(images), -1).astype(np.float32)
    last = len(HIDDEN)
    for i in range(last):
        x = np.maximum(x @ arrays[f"weight{i}"].T + arrays[f"bias{i}"], 0)
    scores = x @ arrays[f"weight{last}"].T + arrays[f"bias{last}"]
    return int((scores.argmax(axis=1) == labels).sum())


def write_npz(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Like np.savez_compressed, with a fixed date on every member."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", FIXED_DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    with threadpool_limits(1):
        model, images, labels = train()
    arrays = network_arrays(model)
    right = right_answers(arrays, images, labels)
    metadata = {
        "source": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak (1998), "
        "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49; "
        "the copy in sklearn.datasets.load_digits",
        "licence": "data: CC BY 4.0; scikit-learn: BSD-3-Clause",
        "script": "bench/train_digits.py",
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "seed": SEED,
        "layers": [images[0].size, *HIDDEN, len(model.classes_)],
        "activations": ["relu"] * len(HIDDEN) + ["softmax"],
        "pixels": f"0 to {PIXEL_MAX}, unscaled: the scale is folded into weight0",
        "train_images": 1797 - TEST_IMAGES,
        "test_images": TEST_IMAGES,
        "test_right": right,
        "test_accuracy": right / TEST_IMAGES,
    }
    text = np.array(json.dumps(metadata, indent=1))
    write_npz(path, {**arrays, "images": images, "labels": labels, "metadata": text})
    print(f"{path}: {path.stat().st_size} bytes, {right} of {TEST_IMAGES} test images read right")


if __name__ == "__main__":
    main()

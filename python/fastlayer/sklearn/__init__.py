"""Multi-layer perceptrons for scikit-learn: its constructors, its draws, its habits, and more.

Imported when asked for; needs scikit-learn 1.5 or later, ``pip install "fastlayer-nn[sklearn]"``.
"""

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ImportError(
        "fastlayer.sklearn needs scikit-learn 1.5 or later: pip install 'fastlayer-nn[sklearn]'"
    )

from fastlayer.sklearn.classifier import MLPClassifier
from fastlayer.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

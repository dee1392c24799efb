"""Multi-layer perceptrons for scikit-learn: its constructors, its draws, its habits, and more.

Imported when asked for; needs scikit-learn 1.5 or later, ``pip install "fastlayer-nn[sklearn]"``.
"""

try:
    import sklearn as _sklearn  # noqa: F401  # what follows needs it, and says so with less help
except ImportError as error:
    raise ImportError(
        "fastlayer.sklearn needs scikit-learn 1.5 or later: pip install 'fastlayer-nn[sklearn]'"
    ) from error

from fastlayer.sklearn.classifier import MLPClassifier
from fastlayer.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

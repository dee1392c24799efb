"""The libraries that are measured, one module each.

``available()`` gives a version, or None where the library is missing. ``prepare(case, dtype,
threads)`` gives what is timed and the arguments in the library's own form, so that nobody pays for
a conversion that its users don't need; or None where the case doesn't apply.
"""

NAMES = (
    "fastlayer",
    "numpy_plain",
    "numpy_out",
    "torch_eager",
    "onnxruntime",
    "openvino",
    "jax",
    "sklearn",
)

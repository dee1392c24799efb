"""The libraries that are measured, one module each.

``available()`` gives a version, or None where the library is missing. ``prepare(case, dtype,
threads)`` gives the forms in which a careful user of the library would write the case: a dict of
name -> (what is timed, its arguments). The arguments are in the library's own form, so that nobody
pays for a conversion that its users don't need. None where the case doesn't apply. The fastest form
is what counts; where calls are long, only the last one is tried, which is the one that spares most.
``learners(task)``, where a library trains networks, gives the ways to do that (`_training.py`).
"""

NAMES = (
    "fastlayer",
    "numpy_plain",
    "numpy_out",
    "torch_eager",
    "torch_compiled",
    "onnxruntime",
    "openvino",
    "litert",
    "mnn",
    "jax",
    "sklearn",
    "keras",
)
# Beside those, on a machine with AVX-512: what fastlayer does without it, against the same peers.
HELD = "fastlayer_avx2"

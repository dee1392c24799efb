import os
import sys
import sysconfig

import hypothesis
import numpy as np
import pytest
from registers import AVAILABLE, control_register

hypothesis.settings.register_profile(
    "fastlayer", deadline=None, derandomize=True, max_examples=100, database=None
)
# The long runs: 10^4 examples of every test, other ones each time.
hypothesis.settings.register_profile("long", deadline=None, max_examples=10_000, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fastlayer"))


def pytest_report_header(config):
    try:
        from helpers import active_isa

        import fastlayer as fl
    except ImportError as error:
        return f"fastlayer: not importable ({error})"
    wanted = os.environ.get("FASTLAYER_ISA") or "not set"
    return (
        f"fastlayer {fl.__version__}: instruction set {active_isa()} (FASTLAYER_ISA {wanted}), "
        f"threads {fl.get_num_threads()}, numpy {np.__version__}"
    )


def pytest_sessionfinish(session):
    """On free-threaded Python, nothing may have turned the GIL on."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys._is_gil_enabled():
        raise pytest.UsageError("the GIL is on: some extension module needs it")


@pytest.fixture(autouse=True)
def control_register_stays():
    """Rounding and flush-to-zero of the caller are never changed, whatever a test does."""
    before = control_register() if AVAILABLE else None
    yield
    if AVAILABLE:
        assert control_register() == before


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"threads{n}")
def threads(request):
    """Runs the test with this many threads; fastlayer never uses more than it is told."""
    import fastlayer as fl

    before = fl.get_num_threads()
    fl.set_num_threads(request.param)
    yield request.param
    fl.set_num_threads(before)

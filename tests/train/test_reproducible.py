"""A run of 300 steps has the same bits on any number of threads and any instruction set.

The digests are golden: they change only with the contract of docs/numerics.md. To write them anew:
``PYTHONPATH=tests/support python tests/train/test_reproducible.py``.
"""

from pathlib import Path

import pytest
import training_runs
from helpers import available_isas, requested_isa
from own_process import run_python
from training_runs import CASES, fitted, in_steps, interrupted, pickled, step_by_step

import fastlayer as fl
from fastlayer.train.core import CoreSteps

GOLDEN = {
    "classifier-float32": "1aea3add305a2e040006bdaf17310c0e220948cae33cbfc8b21f3bd5ac9ab44d",
    "classifier-float64": "f3723c1d195797a09d3ca98edc9974106a9bf42f33b709568300db7ee7087096",
    "regressor-float32": "ed1bf137c9eb1b8c6fa48f4d89f998cc19bb01075ce8f5d73fbd92842aec0537",
    "regressor-float64": "0650ace91fbb03437d9019d2c5451ffb06d8ca11a0b6441e849445fa5470d892",
    "tiny-float32": "b1b8ae1e244dcbd68f68e2c70a443c113147b93a20a75eb837005a8f9694613b",
    "tiny-float64": "a112a1ab6b145a8fbba141893c996cdbc3730477b4c9e2cd2e8739e163b60e87",
    "wide-float32": "463e39cb52ce1787e6a202948a2e8383d8ea1f15f6326e110278f49a20bce12f",
    "wide-float64": "2e96ca81155d59a3d9d4dd4958a25d33d8c5b34b4d414282a7d1c0d637d587d3",
    "fit": "3a84f5d2f6888839281ec62be3e61b59938abbab4ef8af0c789a03cc08300a11",
}
SUPPORT = str(Path(training_runs.__file__).parent)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", [in_steps, step_by_step, pickled], ids=lambda f: f.__name__)
def test_however_the_steps_are_taken(case, how):
    assert how(case) == GOLDEN[case]


@pytest.mark.thread_unsafe(reason="takes the fast path from all threads")
@pytest.mark.parametrize("case", [*(case for case in CASES if "regressor" not in case), "fit"])
def test_without_the_fast_path(case, monkeypatch):
    """The digests are those of both; a regressor has parts that only the plain one knows."""
    monkeypatch.setattr(CoreSteps, "of", lambda *_: None)
    assert (fitted() if case == "fit" else in_steps(case)) == GOLDEN[case]


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("classifier")])
def test_interrupted_by_ctrl_c(case):
    assert interrupted(case) == GOLDEN[case]


@pytest.mark.thread_unsafe(reason="counts the parallel regions of the process")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("case", CASES)
def test_on_any_number_of_threads(case, count):
    before = fl._core.stats()["parallel_regions"]
    with fl.num_threads(count):
        assert in_steps(case) == GOLDEN[case]
    parallel = fl._core.stats()["parallel_regions"] - before
    if count == 1 or not fl._core.config()["openmp"]:
        assert parallel == 0
    elif case.startswith("wide"):
        assert parallel >= 3  # there was work for them


# Where one is asked for, all tests are about that one.
@pytest.mark.parametrize("isa", available_isas() if requested_isa() is None else [requested_isa()])
def test_on_every_instruction_set_of_the_processor(isa):
    some = [CASES[0], CASES[3], CASES[4], CASES[7], "fit"]
    code = (
        f"import sys; sys.path.insert(0, {SUPPORT!r})\n"
        "import fastlayer as fl\n"
        "from training_runs import fitted, in_steps\n"
        f"assert fl.show_config(mode='dicts')['isa']['active'] == {isa!r}\n"
        f"print(*(fitted() if case == 'fit' else in_steps(case) for case in {some}))"
    )
    found = run_python(code, env={"FASTLAYER_ISA": isa}).split()
    assert found == [GOLDEN[case] for case in some]


@pytest.mark.parametrize("count", [1, 3])
def test_fit(count):
    with fl.num_threads(count):
        assert fitted() == GOLDEN["fit"]


if __name__ == "__main__":
    for case in CASES:
        print(f'    "{case}": "{in_steps(case)}",')
    print(f'    "fit": "{fitted()}",')

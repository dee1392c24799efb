"""Help: every public name explains itself, its examples run, and completion offers nothing else."""

from __future__ import annotations

import doctest
import inspect
import pydoc
import re
from functools import cache
from typing import Any

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.convert.numpy_objects import Accelerated
from fastlayer.convert.sklearn import Classifier, Regressor
from fastlayer.report.profile import Profile
from fastlayer.report.summary import Summary
from fastlayer.report.verification import Proof, Verification

# What methods and converters return. Nobody makes these by hand, so their class needs no example.
RETURNED = (Summary, Profile, Verification, Proof, Classifier, Regressor, Accelerated)

# Checks of numpydoc that are left out.
IGNORED = {
    "ES01",  # a longer description, where one line says it
    "SA01",  # references to other functions, where there is none worth following
}


@cache
def documented() -> dict[str, Any]:
    """Public functions and classes, with the public methods and properties of the classes."""
    found: dict[str, Any] = {}
    named = {name: getattr(fl, name) for name in fl.__all__ if name != "__version__"}
    for name, thing in {**named, **{kind.__name__: kind for kind in RETURNED}}.items():
        found[name] = thing
        if not inspect.isclass(thing):
            continue
        foreign = dir(ValueError) if issubclass(thing, ValueError) else ()
        for member in dir(thing):
            if (member == "__call__" or not member.startswith("_")) and member not in foreign:
                found[f"{name}.{member}"] = inspect.getattr_static(thing, member)
    return found


def plain(thing: Any) -> Any:
    return getattr(thing, "__func__", thing)  # of a classmethod


def path_of(name: str) -> str:
    """Where numpydoc imports it from."""
    kind, _, member = name.partition(".")
    thing = documented()[kind]
    return ".".join(filter(None, (thing.__module__, thing.__qualname__, member)))


@pytest.mark.parametrize("name", documented())
def test_docstring_has_what_numpydoc_wants(name) -> None:
    validate = pytest.importorskip("numpydoc.validate")
    ignored = set(IGNORED)
    thing = documented()[name]
    if not callable(plain(thing)) or name.partition(".")[0] in {k.__name__ for k in RETURNED}:
        ignored.add("EX01")  # an example of an attribute would be one of its class
    if thing in RETURNED:
        ignored.add("PR01")  # the parameters are the caller's affair
    found = validate.validate(path_of(name))["errors"]
    assert [error for error in found if error[0] not in ignored] == []


def with_examples() -> list[str]:
    return [n for n, thing in documented().items() if ">>>" in (plain(thing).__doc__ or "")]


def test_every_function_class_and_method_has_an_example() -> None:
    made_elsewhere = {kind.__name__ for kind in RETURNED}
    wanted = {
        name
        for name, thing in documented().items()
        if callable(plain(thing)) and name.partition(".")[0] not in made_elsewhere
    }
    assert wanted <= set(with_examples())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("name", with_examples())
def test_examples_run(name, monkeypatch) -> None:
    text = plain(documented()[name]).__doc__
    for module in re.findall(r">>> (?:import|from) (\w+)", text):
        if module == "keras":
            monkeypatch.setenv("KERAS_BACKEND", "torch")
        pytest.importorskip(module)
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert not any(doctest.SKIP in e.options for e in example.examples)
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_examples_of_the_package_run() -> None:
    example = doctest.DocTestParser().get_doctest(fl.__doc__, {}, "fastlayer", None, None)
    assert example.examples
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_completion_offers_the_public_names() -> None:
    assert public(fl) == {name for name in fl.__all__ if not name.startswith("_")}
    assert "__version__" in dir(fl)


FORWARD = {
    *("dtype", "flops", "forward", "in_features", "nbytes", "num_parameters", "out_features"),
}
NORM = {*FORWARD, "eps", "weight"}
OBJECTS = {
    "Activation": (lambda: fl.Activation("relu"), {"name", "num_parameters", "parameters"}),
    "BatchNorm": (lambda: fl.BatchNorm(2), {*NORM, "bias", "running_mean", "running_var"}),
    "Flatten": (fl.Flatten, set()),
    "Layer": (
        lambda: fl.Layer(2, 1),
        {*FORWARD, "activation", "bias", "from_arrays", "update", "weight"},
    ),
    "LayerNorm": (lambda: fl.LayerNorm(2), {*NORM, "bias"}),
    "Network": (
        lambda: fl.Network([fl.Layer(2, 1)]),
        {
            *FORWARD,
            *("activations", "astype", "copy", "fit", "gradients", "input_names", "layers"),
            *("output_names", "predict", "profile", "save", "summary", "to_onnx", "to_torch"),
            *("verification", "verify"),
        },
    ),
    "RMSNorm": (lambda: fl.RMSNorm(2), NORM),
    "Residual": (lambda: fl.Residual(fl.Layer(2, 2)), {*FORWARD, "layers"}),
    "num_threads": (lambda: fl.num_threads(1), set()),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_completion_of_objects_offers_the_public_names(name) -> None:
    make, names = OBJECTS[name]
    thing = make()
    thing(np.ones((1, 2), np.float32)) if callable(thing) else None  # a call leaves nothing public
    assert public(thing) == names


@pytest.mark.parametrize("make", ["summary", "profile", "verify"])
def test_attributes_of_results_are_documented(make) -> None:
    net, x = fl.Network([fl.Layer(2, 1, rng=0)]), np.ones((3, 2), np.float32)
    arguments = {"summary": (), "profile": (x,), "verify": (net, x)}[make]
    result = getattr(net, make)(*arguments)
    told = re.findall(
        r"^    ([\w, ]+) : ", inspect.getdoc(result).replace("\n", "\n    "), re.MULTILINE
    )
    assert public(result) == {name for names in told for name in names.split(", ")}


def test_help_reads_well() -> None:
    text = pydoc.render_doc(fl.Layer, renderer=pydoc.plaintext)
    assert "Dense layer: ``activation(x @ weight.T + bias)``." in text
    assert "from_arrays(" in text
    assert "update(" in text
    assert " object at 0x" not in text
    for name in ("_KEEP", "_lower", "_run", "_state"):
        assert not re.search(rf"^ \|  {name}\b", text, re.MULTILINE)

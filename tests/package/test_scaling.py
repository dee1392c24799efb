"""The examples of docs/scaling.md. Ray and Spark are not needed: what the user writes is tried alone."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits

import fastlayer as fl
from fastlayer.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")


def example(heading, language="python"):
    section = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return block


def names_of(code, folder):
    (folder / "example.py").write_text(code, "utf-8")
    return runpy.run_path(str(folder / "example.py"), {}, "example")


def without_the_framework(block):
    """What of an example does not need the framework."""
    kept = []
    for statement in ast.parse(block).body:
        source = ast.unparse(statement)
        own = isinstance(statement, ast.FunctionDef | ast.ClassDef) or "fl." in source
        if own or re.match(r"(import|from) (fastlayer|numpy|typing)\b", source):
            kept.append(source)
    return "\n".join(kept)


@pytest.fixture(autouse=True)
def restored():
    before = fl.get_num_threads()
    yield
    fl.set_num_threads(before)


def test_examples_are_short():
    for heading in ("Dask", "Training on a cluster", "Ray", "Spark"):
        assert len([line for line in example(heading).splitlines() if line.strip()]) <= 15


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = names_of(example("One machine"), tmp_path)["y"]
    command = shlex.split(example("One machine", "sh"))
    assert command[:3] == ["python", "-m", "fastlayer"]
    assert main(command[3:]) == 0
    assert_same_bits(np.load("out.npy"), y)


def test_dask(tmp_path):
    pytest.importorskip("dask.array")
    names = names_of(example("Dask"), tmp_path)
    assert names["y"].shape == (10_000, 10)
    assert names["y"].chunks[0] == names["x"].chunks[0]
    expected = names["net"](names["x"].compute())
    assert_same_bits(names["y"].compute(), expected)
    assert np.array_equal(names["labels"], expected.argmax(axis=1))


def test_training_on_a_cluster(tmp_path):
    pytest.importorskip("dask.array")
    names = names_of(example("Training on a cluster"), tmp_path)
    net = fl.Network([fl.Layer(64, 32, "relu", rng=0), fl.Layer(32, 1, rng=1)])
    x = names["x"].compute()
    history = net.fit(x, names["t"], epochs=2, batch_size=2_048, rng=0)
    assert history.loss == names["history"].loss
    assert_same_bits(names["net"](x), net(x))


def test_ray(tmp_path):
    names = names_of(without_the_framework(example("Ray")), tmp_path)
    net = names["net"]
    x = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    x.flags.writeable = False  # as Ray hands batches over
    actor = names["Predict"](pickle.loads(pickle.dumps(net)))
    assert_same_bits(actor({"data": x})["y"], net(x))


def test_spark(tmp_path):
    names = names_of(without_the_framework(example("Spark")), tmp_path)
    predict = names["make_predict"]()
    assert len(inspect.signature(predict).parameters) == 1  # Spark counts them
    x = np.ones((5, 2), np.float32)
    assert_same_bits(predict(x), names["net"](x))

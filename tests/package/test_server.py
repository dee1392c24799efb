"""The server of docs/deployment.md: the Open Inference Protocol, alone and behind gunicorn."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from pages import ROOT, commands, run, run_python, sections

import fastlayer as fl

SECTION = sections(ROOT / "docs" / "deployment.md")["A server"]
CLIENT = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[-1]
JSON = {"Content-Type": "application/json"}
X = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 4.8, 1.8]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Holds server.py and the network that it serves."""
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    before_client, _, _ = SECTION.partition("A client needs")
    run(before_client, "server", tmp_path)
    return tmp_path


# Starlette would rather have httpx2, which its own users have not moved to.
@pytest.fixture
def client(folder):
    pytest.importorskip("httpx")
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*httpx")
        from fastapi.testclient import TestClient
    served = run_python((folder / "server.py").read_text("utf-8"), {}, folder / "imported.py")
    return TestClient(served["app"])


def tensor(data, datatype="FP32", shape=(2, 4)):
    inputs = [{"name": "x", "shape": list(shape), "datatype": datatype, "data": data}]
    return {"inputs": inputs}


def test_health_and_metadata(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/iris/ready").json() == {"name": "iris", "ready": True}
    assert client.get("/v2").json()["version"] == fl.__version__
    metadata = client.get("/v2/models/iris").json()
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


@pytest.mark.parametrize("data", [X, X[0] + X[1]], ids=["nested", "flat"])
def test_inference_gives_the_bits_of_the_network(client, data):
    answer = client.post("/v2/models/iris/infer", json={**tensor(data), "id": "7"}).json()
    assert (answer["model_name"], answer["id"]) == ("iris", "7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 3])
    expected = fl.load("iris.npz")(np.float32(X))
    assert np.array_equal(np.float32(output["data"]).reshape(2, 3), expected)


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("rose", tensor(X), 404, "rose"),
        ("iris", tensor(X, shape=(2, 3)), 400, "reshape"),
        ("iris", tensor(X, shape=(4, 2)), 400, r"\(\.\.\., 4\)"),
        ("iris", tensor(X, "BYTES"), 400, "FP32"),
        ("iris", tensor(["a"] * 8), 400, "convert"),
        ("iris", tensor([300] * 8, "UINT8"), 400, "300"),
        ("iris", {"inputs": []}, 400, "one input"),
        ("iris", {}, 400, "inputs"),
        ("iris", tensor([3.4e38] * 8), 422, "finite"),
        ("iris", {**tensor(X), "id": "\ud800"}, 400, "surrogates"),
        ("iris", {**tensor(X), "id": "a\udfffb"}, 400, "surrogates"),
        ("iris", {**tensor(X), "id": 7}, 400, "id"),
        ("iris", tensor(["\ud800"] * 8), 400, "convert"),
        ("iris", tensor(X, "\ud800"), 400, "FP32"),
    ],
    ids=[
        "model",
        "size",
        "features",
        "datatype",
        "text",
        "range",
        "none",
        "form",
        "overflow",
        "half",
        "other half",
        "number",
        "data",
        "datatype of half",
    ],
)
def test_what_is_wrong_is_said(client, model, body, status, words):
    content = json.dumps(body)  # in ASCII
    answer = client.post(f"/v2/models/{model}/infer", content=content, headers=JSON)
    assert answer.status_code == status
    assert re.search(words, answer.json()["error"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(url: str, server: subprocess.Popen) -> None:
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            with urlopen(f"{url}/v2/health/ready") as response:
                assert json.load(response) == {"ready": True}
                return
        except (URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail("the server does not answer")


def test_gunicorn_with_preload_answers(folder, monkeypatch, capsys):
    """The command of the page, with 4 workers forked from a process that has computed."""
    pytest.importorskip("gunicorn.workers.gasgi")
    port = free_port()
    (command,) = [c for c in commands(SECTION) if c.startswith("gunicorn ")]
    words = shlex.split(command.replace("8000", str(port)))
    assert "--preload" in words
    path = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": path}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdout=log, stderr=log
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server)
        for _ in range(20):
            run_python(CLIENT.replace("8000", str(port)), {}, folder / "client.py")
        wrong = Request(f"http://127.0.0.1:{port}/v2/models/iris/infer", b"{}")
        with pytest.raises(HTTPError, match="400"):
            urlopen(wrong)
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert len(set(lines)) == 1
    assert lines[0].startswith("[1, 3] [")


def test_the_long_run_finds_nothing_in_a_short_one(folder):
    pytest.importorskip("gunicorn.workers.gasgi")
    command = [sys.executable, ROOT / "bench" / "soak.py", "--minutes", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same all the time" in done.stdout

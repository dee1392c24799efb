"""`fastlayer.sklearn` beside scikit-learn's MLP: time to fit and to predict, in one run.

    python bench/estimators.py                         # bench/results-estimators-*.json, and a table
    python bench/estimators.py --mnist mnist.npz       # with MNIST: x_train, y_train of that file
    python bench/estimators.py --publish               # and the table of docs/from_sklearn.md

Each library and number of threads is a process of its own; they take turns, and the one that isn't at
work is stopped. Both fit for the same number of epochs and have to come to the same loss. The ratio is
taken turn by turn; the median of the turns counts. Rows that others disturb are measured again
(quiet.py); one that stays disturbed is not published.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from processes import Peer
from quiet import Quiet
from run import commit, machine

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "from_sklearn.md"
MARKS = "<!-- times -->\n", "<!-- end of times -->\n"
SKLEARN, OURS, HELD = "sklearn", "fastlayer", "fastlayer_avx2"
DEFAULTS = {"random_state": 0}
LOSSES_AGREE = {"float64": 1e-9, "float32": 1e-3}  # relative, after all epochs
BLOCK = 0.05  # seconds of predictions in a turn
TURNS = 5


def data(name: str, dtype: str, mnist: str):
    """Samples and targets, scaled as one would."""
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    if name == "mnist":
        with np.load(mnist) as file:
            x, y = file["x_train"].reshape(-1, 784) / 255, file["y_train"].astype(int)
    elif name == "table":
        x, y = datasets.make_regression(100_000, 50, n_informative=20, noise=1, random_state=0)
        y = y / y.std()
    elif name == "classes":
        x, y = datasets.make_classification(100_000, 50, n_informative=20, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        x = StandardScaler().fit_transform(x)
    y = y / y.std() if name == "diabetes" else y
    return np.ascontiguousarray(x, dtype), y


# Data, what it is called, and epochs: None is the defaults, with which fit ends by itself.
FITS = [
    ("digits", "digits, 1,797 x 64", None),
    ("breast_cancer", "breast cancer, 569 x 30", None),
    ("diabetes", "diabetes, 442 x 10", None),
    ("table", "table, 100,000 x 50, numbers", 5),
    ("classes", "table, 100,000 x 50, classes", 5),
    ("mnist", "MNIST, 60,000 x 784", 3),
]
REGRESSIONS = ("diabetes", "table")


class Worker:
    """One library; `prepare` makes a case, `turn` times it once."""

    def __init__(self, library: str) -> None:
        module = "sklearn.neural_network" if library == SKLEARN else "fastlayer.sklearn"
        self.module = __import__(module, fromlist=["MLPClassifier"])
        self.at = None

    def prepare(self, *, dataset: str, dtype: str, batch, epochs, what: str, mnist: str) -> dict:
        if self.at != (dataset, dtype):
            self.x, self.y = data(dataset, dtype, mnist)
            self.at = dataset, dtype
        name = "MLPRegressor" if dataset in REGRESSIONS else "MLPClassifier"
        options = {**DEFAULTS, "batch_size": batch}
        if epochs:
            options |= {"max_iter": epochs, "tol": 0.0, "n_iter_no_change": np.inf}
        self.make = lambda: getattr(self.module, name)(**options)
        self.what, self.model = what, None
        if what.startswith("predict"):
            options |= {"max_iter": 1}
            self.model = self.make().fit(self.x, self.y)
            self.rows = self.x[:1] if what == "predict_one" else self.x
            self.model.predict(self.rows)
        return {}

    def turn(self) -> dict:
        start = time.perf_counter()
        if self.what == "fit":
            model = self.make().fit(self.x, self.y)
            return {
                "time": time.perf_counter() - start,
                "loss": model.loss_,
                "epochs": model.n_iter_,
            }
        if self.what == "search":
            from sklearn.model_selection import GridSearchCV

            grid = {"hidden_layer_sizes": [(20,), (50,), (100,)], "alpha": [1e-4, 1e-3, 1e-2, 1e-1]}
            model = self.make().set_params(max_iter=20)
            found = GridSearchCV(model, grid, n_jobs=2, cv=3).fit(self.x, self.y)
            return {"time": time.perf_counter() - start, "loss": found.best_score_, "epochs": 20}
        count = 0
        while time.perf_counter() - start < BLOCK:
            self.model.predict(self.rows)
            count += 1
        return {"time": (time.perf_counter() - start) / count}

    def serve(self) -> None:
        warnings.simplefilter("ignore")  # that it did not converge
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(self, command.pop("do"))(**command)
            except Exception as error:  # noqa: BLE001  # the run says so
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


class Process(Peer):
    worker = Path(__file__)


def rows(mnist: str):
    """The cases: what is done, with what, in which dtype and batches."""
    for dataset, title, epochs in FITS:
        if dataset == "mnist" and not mnist:
            continue
        for dtype in ("float64", "float32"):
            for batch in ("auto", 32):
                yield dataset, title, epochs, dtype, batch, "fit"
            yield dataset, title, 1, dtype, "auto", "predict"
            if dataset == "digits":
                yield dataset, title, 1, dtype, "auto", "predict_one"
    yield "digits", "digits, search", None, "float64", "auto", "search"


def measured(peers: list[Process], case, mnist: str) -> dict:
    dataset, _, epochs, dtype, batch, what = case
    for peer in peers:
        answer = peer.ask(
            do="prepare", dataset=dataset, dtype=dtype, batch=batch, epochs=epochs, what=what,
            mnist=mnist,
        )  # fmt: skip
        if "error" in answer:
            raise SystemExit(f"{peer.name}: {case}: {answer['error']}")
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    found: dict[str, dict] = {}
    for turn in range(TURNS):
        for peer in peers:
            answer = peer.ask(do="turn")
            if "error" in answer:
                raise SystemExit(f"{peer.name}: {case}: {answer['error']}")
            times[peer.name].append(answer["time"])
            found[peer.name] = answer
        if turn >= 2 and sum(map(sum, times.values())) > 12:
            break
    theirs = found[SKLEARN].get("loss")
    for name, answer in found.items():
        ours = answer.get("loss")
        if what == "fit" and abs(ours - theirs) > LOSSES_AGREE[dtype] * abs(theirs):
            print(
                f"{name}: {case}: a loss of {ours}, and scikit-learn has {theirs}", file=sys.stderr
            )
    return {
        "times": {k: statistics.median(v) for k, v in times.items()},
        "ratios": {
            name: statistics.median(a / b for a, b in zip(times[SKLEARN], times[name], strict=True))
            for name in times
            if name != SKLEARN
        },
        **({"loss": {k: v["loss"] for k, v in found.items()}} if theirs is not None else {}),
        **({"epochs": {k: v["epochs"] for k, v in found.items()}} if what == "fit" else {}),
    }


def run(mnist: str, patience: float, held: bool, only: str) -> dict:
    libraries = [SKLEARN, OURS] + ([HELD] if held else [])
    quiet = Quiet(patience, say=lambda text: print(text, file=sys.stderr))
    results = []
    for threads in (1, 2):
        peers = [Process(name, threads) for name in libraries]
        try:
            for case in rows(mnist):
                dataset, title, _, dtype, batch, what = case
                if only not in dataset or (what == "search" and threads > 1):
                    continue
                row, load, again = quiet.measure(partial(measured, peers, case, mnist))
                head = {
                    "data": title,
                    "what": what,
                    "dtype": dtype,
                    "batch": batch,
                    "threads": threads,
                }
                results.append(
                    {**head, **row, "again": again, "others": round(load.share, 4),
                     "disturbed": load.disturbing}
                )  # fmt: skip
                print(json.dumps(results[-1]), file=sys.stderr)
        finally:
            for peer in peers:
                peer.close()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "versions": {n: version(n) for n in ("scikit-learn", "numpy", "scipy")},
        "rows": results,
    }


WHAT = {
    "fit": "fit",
    "predict": "predict all",
    "predict_one": "predict one",
    "search": "12 candidates",
}


def table(results: dict) -> str:
    """The rows as Markdown."""
    lines = [
        "| data | | batch | dtype | threads | scikit-learn | fastlayer | times as fast | AVX2 alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        theirs, ours = row["times"][SKLEARN], row["times"][OURS]
        batch = {"auto": 200}.get(row["batch"], row["batch"]) if row["what"] == "fit" else ""
        held = f"{row['ratios'][HELD]:.1f}" if HELD in row["ratios"] else ""
        lines.append(
            f"| {row['data']} | {WHAT[row['what']]} | {batch} | {row['dtype']} | {row['threads']} | "
            f"{shown(theirs)} | {shown(ours)} | {row['ratios'][OURS]:.1f} | {held} |"
        )
    return "\n".join(lines) + "\n"


def shown(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def publish(results: dict) -> None:
    bad = [row for row in results["rows"] if row["disturbed"]]
    if bad:
        raise SystemExit(f"{len(bad)} rows were disturbed, such as {bad[0]}; run again")
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    where = f"{results['machine']['processor']}, {results['machine']['cores']} cores"
    head = f"{results['date']}, {where}, commit {results['commit']}, {versions}.\n\n"
    PAGE.write_text(before + MARKS[0] + head + table(results) + MARKS[1] + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mnist", default="", help="an .npz with x_train and y_train")
    parser.add_argument("--publish", action="store_true", help="write the table of the docs")
    parser.add_argument("--again", action="store_true", help="publish what is there, unmeasured")
    parser.add_argument("--only", default="", help="data sets whose name has this in it")
    parser.add_argument("--patience", type=float, default=900, help="seconds to wait for quiet")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    held = "avx512f" in machine()["flags"]
    if options.results is None:
        options.results = HERE / f"results-estimators-{'avx512' if held else 'avx2'}.json"
    if not options.again:
        results = run(options.mnist, options.patience, held, options.only)
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(options.results.read_text())
    if options.publish:
        publish(results)
    print(table(results))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in (SKLEARN, OURS, HELD.split("_")[0]):
        Worker(sys.argv[1]).serve()
    else:
        main()

"""Writes what was measured of training into docs/training.md, between markers, and its pictures.

python bench/publish_training.py

takes results-training-ISA.json of `run.py --cases 'train:*'` and results-mnist-ISA.json of `mnist.py`
beside it, those that are there, and refuses where one was disturbed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mnist
import pictures
import report
import results_file
from peers import HELD
from publish import HERE, MACHINES, ROOT, fill

Row = dict


def problems(name: str, results: dict) -> list[str]:
    """Why these results can't be published, in plain words; none where they can."""
    measured = results["rows"]
    if name.startswith("results-mnist"):
        measured = [run for row in measured for run in row.get("runs", [])]
    loads = [one["load"] for one in measured if one.get("disturbed")]
    found = []
    if not measured:
        found.append(f"{name}: nothing was measured")
    if loads or results.get("disturbed"):
        text = f"{name}: other processes disturbed {len(loads)} of {len(measured)} measurements"
        text += f" (most: {max(loads):.2f} of a core)" if loads else ""
        found.append(" and ".join([text, *results.get("disturbed", [])]))
    wrong = sorted({r["case"] for r in results["rows"] if "fastlayer" in r.get("failed", {})})
    if wrong:
        found.append(f"{name}: fastlayer is wrong or broken in {', '.join(wrong)}")
    return found


def stamp(results: dict, versions: dict[str, str | None]) -> str:
    machine = results["machine"]
    titles = report.TITLES | {"numpy_out": "NumPy"}
    named = [
        f"{titles[name]} {version}"
        for name, version in versions.items()
        if version and name in report.PEERS and name != "torch_compiled"
    ]
    return (
        f"{machine['processor']} ({machine['fastlayer']['isa']['active']}, {machine['cores']} cores), "
        f"{results['date']}, commit {results['commit']}; {', '.join(named)}."
    )


def trained(results: dict) -> list[Row]:
    """With a step's share of the time of a call, and the optimiser."""
    from cases import STEPS

    found = []
    for row in results_file.expanded(results):
        if (row["kind"], row["mode"]) == ("train", "hot") and row.get("ratio"):
            net, _, optimizer = row["case"].removeprefix("train:").rpartition(":")
            us = {name: value / STEPS for name, value in row["us"].items()}
            found.append(row | {"net": net, "optimizer": optimizer, "us": us})
    return found


def steps(rows: list[Row], optimizer: str) -> str:
    """The table of one optimiser, float32: times with one thread, ratios with each number."""
    rows = [r for r in rows if (r["dtype"], r["optimizer"]) == ("float32", optimizer)]
    counts = sorted({r["threads"] for r in rows})
    first = [r for r in rows if r["threads"] == counts[0]]
    peers = [name for name in report.PEERS if any(name in r["us"] for r in first)]
    body = []
    for row in first:
        cells = [row["net"].replace("@", ", ")]
        for name in ("fastlayer", *peers):
            text = report.duration(row["us"][name] * 1e-6) if name in row["us"] else "-"
            cells.append(f"**{text}**" if name == row["best"] else text)
        cells.append(report.verdict(row["ratio"]))
        for threads in counts[1:]:
            other = next(r for r in rows if (r["net"], r["threads"]) == (row["net"], threads))
            cells.append(report.duration(other["us"]["fastlayer"] * 1e-6))
            cells.append(report.verdict(other["ratio"]))
        body.append(cells)
    named = ["network, batch", "fastlayer", *(report.TITLES[name] for name in peers), "ratio"]
    for threads in counts[1:]:
        named += [f"{threads} threads", "ratio"]
    return report.table(named, body)


def behind(rows: list[Row]) -> str:
    """How many rows, and the geometric means."""
    losing = sorted((r for r in rows if r["ratio"] < 1), key=lambda r: r["ratio"])
    if losing:
        words = [
            f"{r['case'].removeprefix('train:')}, {r['dtype']}, {pictures.plural(r['threads'])}: "
            f"{r['ratio']:.2f} ({report.TITLES[r['best']]})"
            for r in losing
        ]
        text = f"A peer is ahead in {len(losing)} of {len(rows)} rows: {'; '.join(words)}. "
    else:
        text = f"No peer is ahead in any of the {len(rows)} rows that were measured. "
    parts = []
    for key in dict.fromkeys((r["optimizer"], r["dtype"], r["threads"]) for r in rows):
        some = [r["ratio"] for r in rows if (r["optimizer"], r["dtype"], r["threads"]) == key]
        name = {"adam": "Adam", "sgd": "SGD"}.get(key[0], key[0])
        parts.append(f"{report.geometric(some)} ({name}, {key[1]}, {pictures.plural(key[2])})")
    text += f"The geometric means of the ratios are {', '.join(parts)}."
    under = [r["held"] for r in rows if HELD in r["us"] and r.get("held")]
    if under:
        lost = sum(value < 1 for value in under)
        text += f" Held to AVX2 on this machine, beside peers that are not, {lost} of {len(under)} "
        text += f"rows are behind, and the mean is {report.geometric(under)}."
    return text


def training(found: dict[str, dict]) -> str:
    parts = []
    for isa, results in found.items():
        rows = trained(results)
        if len(found) > 1:
            parts.append(f"### {MACHINES[isa]}")
        parts.append(stamp(results, results["versions"]))
        names = {"adam": "Adam", "sgd": "SGD"}
        for optimizer in dict.fromkeys(r["optimizer"] for r in rows):
            parts.append(f"**{names.get(optimizer, optimizer)}**")
            parts.append(steps(rows, optimizer).strip())
        link = f"[All rows, float64 among them](../bench/results-training-{isa}.json)."
        parts.append(f"{behind(rows)} {link}")
    first = trained(next(iter(found.values())))
    for threads in sorted({r["threads"] for r in first if r["dtype"] == "float32"}):
        words = f"Times of a step over that of fastlayer, {pictures.plural(threads)}"
        parts.append(f"![{words}](images/bench-training-{threads}.svg)")
    return "\n\n".join(parts)


def read(found: dict[str, dict]) -> str:
    if not found:
        return "Not measured yet: `python bench/mnist.py --data mnist.npz`."
    parts = []
    for results in found.values():
        versions = {row["peer"]: row.get("version") for row in results["rows"]}
        sizes = "-".join(map(str, results["sizes"]))
        parts.append(
            f"{sizes}, float32, Adam with a rate of {results['rate']:g}, batches of "
            f"{results['batch']}; the median of {max(len(r['epochs']) for r in results['rows'] if 'epochs' in r)} runs. "
            + stamp(results, versions)
        )
        parts.append(mnist.table(results["rows"]).strip())
    goal = next(iter(found.values()))["goal"]
    parts.append(f"![Seconds until {goal:.0%} of the images are read](images/bench-mnist.svg)")
    return "\n\n".join(parts)


def publish(folder: Path = HERE, root: Path = ROOT) -> int:
    kinds: dict[str, dict[str, dict]] = {"training": {}, "mnist": {}}
    wrong = []
    for kind, found in kinds.items():
        for isa in MACHINES:
            path = folder / f"results-{kind}-{isa}.json"
            if path.exists():
                found[isa] = results_file.read(path)
                wrong += problems(path.name, found[isa])
    if not kinds["training"]:
        wrong.append("no results: see bench/README.md")
    for text in wrong:
        print(text, file=sys.stderr)
    if wrong:
        print("nothing was published", file=sys.stderr)
        return 1
    page = root / "docs" / "training.md"
    fill(page, {"steps": training(kinds["training"]), "mnist": read(kinds["mnist"])})
    images = root / "docs" / "images"
    pictures.draw_training(next(iter(kinds["training"].values())), report.TITLES, images)
    for results in list(kinds["mnist"].values())[:1]:
        pictures.draw_mnist(results, report.TITLES, images)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    sys.exit(publish())

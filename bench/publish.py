"""Writes what runs measured into README.md and docs/, between markers; words around them stay.

python bench/publish.py

takes results-avx512.json and results-avx2.json beside it, those of them that are there, and
results-comparison.json, and refuses where one isn't whole or was disturbed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pictures
import report
import results_file
from cases import STEPS
from goals import where

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MACHINES = {"avx512": "AVX-512 machine", "avx2": "AVX2 machine"}
HELD = "AVX-512 machine, held to AVX2"
MOST = 40  # losing rows on the page; the table of all rows has the others
# The README's table: its columns, each with the peers whose fastest form counts.
COMPARED = {
    "fastlayer": ("fastlayer",),
    "NumPy": ("numpy_plain", "numpy_out"),
    "PyTorch": ("torch_eager", "torch_compiled"),
    "ONNX Runtime": ("onnxruntime",),
    "scikit-learn": ("sklearn",),
}
CALLS = {
    "64-100-10@1": "one row through 64-100-10",
    "784-512-512-10@1": "one row through 784-512-512-10",
    "784-512-512-10@4096": "4096 rows through it",
    "train:784-128-10@128:adam": "a step of training, 784-128-10, 128 rows",
}
Row = dict
NO_RESULTS = (
    "**No results yet:** other processes were at work when these numbers were measured, and nobody knows "
    "how much. They stand here until the next whole run."
)
# The headings of docs/performance.md that say what stands in the way, by the group of a row.
REASONS = {
    "few": "Few rows",
    "many": "Many rows",
    "large": "Weights beyond the caches",
    "variant": "Networks with other activations",
    "narrow": "Narrow networks",
    "product": "Plain products",
    "sample": "One sample on plain arrays",
    "accelerate": "Accelerate",
    "activation": "Activations",
    "latency": "After a rest, beside neighbours",
    "load": "Loading a file",
    "train": "Training",
}


def problems(name: str, results: dict) -> list[str]:
    """Why these results can't be published, in plain words; none where they can."""
    rows, found = results["rows"], []
    again = f"python bench/run.py -o bench/{name} --resume --publish"
    if unmeasured({"": results}):
        text = f"{name}: what other processes took was not measured. Make a new run: "
        return [text + "python bench/run.py --publish"]
    if not results["whole"]:
        found.append(f"{name}: not a whole run. Go on: {again}")
    disturbed = [row for row in rows if row.get("disturbed")]
    if disturbed or results["disturbed"]:
        worst = max(disturbed, key=lambda row: row["load"], default=None)
        text = ", ".join([f"{len(disturbed)} rows"] * bool(disturbed) + results["disturbed"])
        text = f"{name}: other processes disturbed {text}"
        text += f" (most: {worst['load']:.2f} of a core, {where(worst)})" if worst else ""
        found.append(f"{text}. When the machine is quiet, measure them again: {again}")
    wrong = sorted({row["case"] for row in rows if "fastlayer" in row.get("failed", {})})
    if wrong:
        found.append(f"{name}: fastlayer is wrong or broken in {', '.join(wrong)}")
    return found


def columns(found: dict[str, dict]) -> dict[str, dict]:
    """Results by the title of a column; those held to AVX2 are rows of the AVX-512 machine."""
    result = {}
    for isa, title in MACHINES.items():
        if isa in found:
            result[title] = found[isa]
            if any("held" in row for row in found[isa]["rows"]):
                result[HELD] = found[isa]
    return result


def rows_of(title: str, results: dict) -> list[Row]:
    rows = results_file.expanded(results)
    return report.held(rows) if title == HELD else rows


def counted(title: str, results: dict, mode: str | None = "hot") -> list[Row]:
    """Those with a ratio; the loading of files is another kind of thing, and counted apart."""
    return [
        row
        for row in rows_of(title, results)
        if row.get("ratio") and row["kind"] != "load" and mode in (None, row["mode"])
    ]


def answer(machines: dict[str, dict]) -> str:
    """Three sentences, and the machines that they are about."""
    first = next(iter(machines))
    share = []
    for title, results in machines.items():
        rows = counted(title, results)
        behind = [row["ratio"] for row in rows if row["ratio"] < 1]
        worst = f", at worst {min(behind):.2f}" if behind else ""
        named = f"{title} (its peers are not held)" if title == HELD else title
        share.append(
            f"{len(behind)} of {len(rows)} rows ({len(behind) / len(rows):.0%}) on the {named}{worst}"
        )
    rows = counted(first, machines[first])
    few = [row for row in rows if row["kind"] == "network" and row["batch"] <= 32]
    small = means(
        few,
        {
            f"({dtype}, {pictures.plural(n)})": lambda r, key=(dtype, n): (
                key == (r["dtype"], r["threads"])
            )
            for dtype in ("float32", "float64")
            for n in (1, 2)
        },
    )
    other = means(
        rows,
        {
            "for networks of more rows": lambda r: r["kind"] == "network" and r["batch"] > 32,
            "for networks of two inputs": lambda r: r["kind"] == "critic",
            "for plain products": lambda r: r["kind"] in ("matmul", "linear", "column"),
            "for NumPy classes behind `fl.accelerate`": lambda r: r["kind"] == "accelerate",
            "for activations": lambda r: r["kind"] == "activation",
            "for training": lambda r: r["kind"] == "train",
        },
    )
    text = (
        f"For networks of 1 to 32 rows on the {first}, the fastest peer of equal accuracy takes {small} times "
        f"as long as fastlayer, in the geometric mean. It takes {other}. "
        f"That peer is ahead in {'; '.join(share)}."
    )
    warning = [NO_RESULTS] if unmeasured(machines) else []
    return "\n\n".join([*warning, text, sources(machines)])


def means(rows: list[Row], parts: dict[str, Callable[[Row], bool]]) -> str:
    """`1.23 PART, 1.34 PART`: geometric means of the ratios of those parts that have rows."""
    found = []
    for name, belongs in parts.items():
        some = [row["ratio"] for row in rows if belongs(row)]
        found += [f"{report.geometric(some)} {name}"] if some else []
    return ", ".join(found)


def sources(machines: dict[str, dict]) -> str:
    """The machines, and when they were measured."""
    body = []
    for title, found in machines.items():
        processor = report.facts_of(found)["processor"]
        body.append([title, processor, found["date"], found["commit"], quiet(found), data(title)])
    for title in MACHINES.values():
        if title not in machines:
            body.append([title, "not measured yet", *["-"] * 4])
    named = ["machine", "processor", "date", "commit", "rows disturbed by others", "all rows"]
    return report.table(named, body)


def data(title: str) -> str:
    """A link to the results as JSON."""
    isa = next((isa for isa, name in MACHINES.items() if name == title), None)
    return f"[JSON](../bench/results-{isa}.json)" if isa else "in the same"


def unmeasured(machines: dict[str, dict]) -> bool:
    return any("load" not in row for results in machines.values() for row in results["rows"])


def quiet(results: dict) -> str:
    if unmeasured({"": results}):
        return "**not measured**"
    return str(sum(bool(row.get("disturbed")) for row in results["rows"]))


def comparison(results: dict, training: dict | None, found: dict) -> str:
    """The README's table: what people decide on."""
    libraries = list(found["libraries"].values())
    body = [
        ["installed, beside NumPy", *(f"{one['bytes'] / 1e6:.3g} MB" for one in libraries)],
        ["`import`, beside NumPy's", *(f"{one['import'] * 1e3:.3g} ms" for one in libraries)],
    ]
    body[0][2] = body[1][2] = ""
    measured = [*results_file.expanded(results)]
    measured += results_file.expanded(training) if training else []
    for row in measured:
        key = (row["dtype"], row["threads"], row["mode"])
        if row["case"] not in CALLS or key != ("float32", 1, "hot"):
            continue
        calls = STEPS if row["kind"] == "train" else 1
        cells = []
        for names in COMPARED.values():
            times = [row["us"][name] for name in names if name in row["us"]]
            cells.append(report.duration(min(times) / calls * 1e-6) if times else "-")
        body.append([CALLS[row["case"]], *cells])
    same = ["the same" if one["same_bits"] else "differ" for one in libraries]
    yes = ["yes" if one["pickles"] else "no" for one in libraries]
    body += [
        ["a row's bits, alone and in a batch", *same],
        ["and on any processor, promised", "yes", *["no"] * 4],
        ["after a fork, with threads used before", *(one["fork"] for one in libraries)],
        ["can be pickled", *yes],
        ["trains", "yes", "by hand", "yes", "no", "yes"],
        ["convolutions, GPUs", "no", "no", "yes", "yes", "no"],
    ]
    machine, rows = results["machine"], counted("", results, None)
    behind = sum(row["ratio"] < 1 for row in rows)
    warning = f"{NO_RESULTS} " if unmeasured({"": results}) else ""
    named = zip(COMPARED, libraries, strict=True)
    versions = ", ".join(f"{name} {one['version']}" for name, one in named)
    return (
        report.table(["", *COMPARED], body)
        + f"\n{warning}Times on one thread, float32, each library in "
        f"its fastest form: {machine['processor']} ({machine['fastlayer']['isa']['active']}), "
        f"{results['date']}; {versions}. The whole benchmark has OpenVINO, LiteRT, MNN and JAX, too: "
        f"in {behind} of its {len(rows)} rows a peer of equal accuracy is ahead of fastlayer."
    )


def reason(row: Row) -> str:
    """The key of REASONS."""
    kind, case = row["kind"], row["case"]
    if kind in ("activation", "accelerate", "load", "train"):
        return kind
    if row["mode"] != "hot":
        return "latency"
    if kind == "critic":
        return "narrow"
    if kind != "network":
        return "sample" if kind == "column" or case.startswith("linear:1x") else "product"
    if ":" in case:
        return "variant"
    if case.startswith("16-64"):
        return "narrow"
    if row["weights"] > 16 << 20:
        return "large"
    return "few" if row["batch"] <= 32 else "many"


def losing(machines: dict[str, dict]) -> str:
    """Every row behind a peer, the worst first, with where the page says why. Not those held to AVX2,
    where the peers have AVX-512.
    """
    found = [
        (row["ratio"], title, row)
        for title, results in machines.items()
        if title != HELD
        for row in rows_of(title, results)
        if row.get("ratio") and row["ratio"] < 1
    ]
    found.sort(key=lambda item: item[0])
    body = []
    for ratio, title, row in found[:MOST]:
        heading = REASONS[reason(row)]
        anchor = heading.lower().replace(",", "").replace(" ", "-")
        best = row["us"][row["best"]] * 1e-6
        body.append(
            [
                f"{ratio:.2f}",
                where(row),
                title,
                report.duration(row["us"]["fastlayer"] * 1e-6),
                f"{report.duration(best)} ({report.TITLES[row['best']]})",
                f"[{heading}](#{anchor})",
            ]
        )
    named = ["ratio", "row", "machine", "fastlayer", "fastest peer of equal accuracy", "why"]
    text = report.table(named, body) if body else "None.\n"
    if len(found) > MOST:
        text += f"\nThe worst {MOST} of {len(found)}; "
        text += "[performance_table.md](performance_table.md) has the others.\n"
    if HELD in machines:
        rows = counted(HELD, machines[HELD])
        behind = sum(row["ratio"] < 1 for row in rows)
        text += f"\nHeld to AVX2 beside peers that have AVX-512, {behind} of {len(rows)} rows are "
        text += "behind: [every group](#every-group).\n"
    return text + "\n" + apart(machines)


def apart(machines: dict[str, dict]) -> str:
    """The rows where a peer that is less accurate is ahead by more than half."""
    body = [
        [f"{row['ratio_loose']:.2f}", where(row), title, ", ".join(errors_of(row))]
        for title, results in machines.items()
        if title != HELD
        for row in results_file.expanded(results)
        if row.get("ratio_loose") and row["ratio_loose"] < 1 / 1.5
    ]
    if not body:
        return ""
    body.sort(key=lambda cells: float(cells[0]))
    named = ["ratio", "row", "machine", "time and largest error of those peers (fastlayer's)"]
    return (
        "Counted apart, as their errors are beyond [the limits](accuracy.md) that fastlayer keeps: "
        "peers that are less accurate and more than 1.5 times as fast.\n\n"
    ) + report.table(named, body)


def errors_of(row: Row) -> list[str]:
    quick = [
        name
        for name in row["loose"]
        if name in row["us"] and row["us"][name] < row["us"]["fastlayer"]
    ]
    return [
        f"{report.TITLES[name]} {report.duration(row['us'][name] * 1e-6)}, "
        f"{row['ulp'][name]:.2g} ULP ({row['ulp']['fastlayer']:.2g})"
        for name in sorted(quick, key=row["us"].__getitem__)
    ]


def group(row: Row) -> str:
    case, kind = row["case"], row["kind"]
    if kind == "network":
        if row["mode"] != "hot":
            return f"networks, {row['mode'].replace('idle', 'after ms of rest: ')}"
        return f"networks, {case.partition(':')[2] or 'relu'}"
    if kind == "activation":
        size, _, more = case.partition("@")[2].partition("/")
        return f"activations, {size} bytes" + (", other spreads and rows" if more else "")
    if kind == "linear" and case.startswith("linear:1x"):
        return "linear, one sample"
    names = {"column": "columns, one sample", "critic": "two inputs", "load": "loading a file"}
    names["train"] = "training"
    return names.get(kind, kind)


def groups(machines: dict[str, dict]) -> str:
    """How many rows of each group are behind, and the worst of them, for each machine."""
    by_group: dict[str, dict[str, list[Row]]] = {}
    for title, results in machines.items():
        for row in rows_of(title, results):
            if row.get("ratio"):
                by_group.setdefault(group(row), {}).setdefault(title, []).append(row)
    body = []
    for name, found in by_group.items():
        cells = [name]
        for title in machines:
            rows = found.get(title, [])
            if not rows:
                cells += ["-", "-", "-"]
                continue
            worst = min(rows, key=lambda row: row["ratio"])
            cells += [
                f"{sum(row['ratio'] < 1 for row in rows)} of {len(rows)}",
                f"{statistics.median(row['ratio'] for row in rows):.2f}",
                f"{worst['ratio']:.2f} ({where(worst)}, {report.TITLES[worst['best']]})",
            ]
        body.append(cells)
    named = ["rows"]
    for title in machines:
        named += [f"{title}: behind", "median ratio", "lowest"]
    return report.table(named, body)


def fill(path: Path, parts: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            sys.exit(f"{path}: no {begin.strip()} ... {end.strip()}")
        text = f"{before}{begin}\n{part.strip()}\n\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def every_row(found: dict[str, dict]) -> str:
    words = "Written by [bench/publish.py](../bench/publish.py); "
    words += "[performance.md](performance.md) has the story."
    parts = [f"# Speed: every row\n\n{words}\n"]
    for isa, results in found.items():
        parts.append(f"## {MACHINES[isa]}\n\n{report.markdown(results)}")
    return "\n".join(parts)


def write(found: dict[str, dict], other: dict[str, dict | None], root: Path) -> None:
    """All pages and pictures."""
    machines, first = columns(found), next(iter(found.values()))
    table = comparison(first, other["training"], other["comparison"])
    fill(root / "README.md", {"comparison": table})
    stamps = {title: results for title, results in machines.items() if title != HELD}
    fill(
        root / "docs" / "performance.md",
        {
            "answer": answer(machines),
            "losing": losing(machines),
            "stamp": report.stamp(stamps),
            "goals": report.goal_table(machines),
            "groups": groups(machines),
        },
    )
    table = root / "docs" / "performance_table.md"
    table.write_text(every_row(found), encoding="utf-8")
    pictures.draw(machines, root / "docs" / "images")


def publish(folder: Path = HERE, root: Path = ROOT) -> int:
    paths = {isa: folder / f"results-{isa}.json" for isa in MACHINES}
    found = {isa: results_file.read(path) for isa, path in paths.items() if path.exists()}
    if not found:
        print("no results: python bench/run.py --publish", file=sys.stderr)
        return 1
    wrong = [text for isa, results in found.items() for text in problems(paths[isa].name, results)]
    other: dict[str, dict | None] = {}
    for name in ("training", "comparison"):
        isa = f"-{next(iter(found))}" if name == "training" else ""
        path = folder / f"results-{name}{isa}.json"
        other[name] = results_file.read(path) if path.exists() else None
    compared = other["comparison"]
    if not compared or any(one["disturbed"] for one in compared["libraries"].values()):
        wrong.append("results-comparison.json: missing or disturbed: python bench/comparison.py")
    for text in wrong:
        print(text, file=sys.stderr)
    if wrong:
        print("nothing was published", file=sys.stderr)
        return 1
    write(found, other, root)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    sys.exit(publish())

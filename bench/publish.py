"""Writes what a run measured into README.md and docs/, between markers; words around them stay.

python bench/publish.py bench/results.json
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pictures
import report
import results_file

ROOT = Path(__file__).resolve().parents[1]
README_CASES = (
    *("3-8-8-3@1", "64-100-10@1", "64-100-10@1797", "784-128-10@1", "784-512-512-10@1"),
    *("784-512-512-10@32", "784-512-512-10@4096", "768-3072-768@8", "4096-4096-4096@1"),
    *("784-128-10@1:column", "matmul:1024", "activation:tanh@1e6"),
)
Row = dict


def verdict(row: Row) -> str:
    return f"{row['ratio']:.2f}" + (" **behind**" if row["ratio"] < 1 else "")


def selection(results: dict) -> str:
    """The README's table: chosen cases, float32, hot, one and two threads side by side."""
    found = {
        (row["case"], row["threads"]): row
        for row in results["rows"]
        if row["dtype"] == "float32" and row["mode"] == "hot" and row["ratio"]
    }
    body = []
    for case in README_CASES:
        one, two = found[case, 1], found[case, 2]
        best = one["peers"][one["best"]]["time"]
        body.append(
            [
                case,
                report.duration(one["peers"]["fastlayer"]["time"]),
                f"{report.duration(best)} ({report.TITLES[one['best']]})",
                verdict(one),
                report.duration(two["peers"]["fastlayer"]["time"]),
                verdict(two),
            ]
        )
    machine, versions = results["machine"], results["versions"]
    counted = [row for row in results["rows"] if row["ratio"]]
    behind = sum(row["ratio"] < 1 for row in counted)
    return (
        f"float32, hot, {machine['processor']} ({machine['fastlayer']['isa']['active']}, "
        f"{machine['cores']} cores); NumPy {versions['numpy_plain']}, "
        f"PyTorch {versions['torch_eager']}, ONNX Runtime {versions['onnxruntime']}, "
        f"OpenVINO {versions['openvino']}, JAX {versions['jax']}. "
        f"A peer is ahead in {behind} of all {len(counted)} rows.\n\n"
        + report.table(["case", "one thread", "best peer", "ratio", "two threads", "ratio"], body)
    )


def group(row: Row) -> str:
    case, kind = row["case"], row["kind"]
    if kind == "network":
        if row["mode"] != "hot":
            return f"networks, {row['mode']}"
        return f"networks, {case.partition(':')[2] or 'relu'}"
    if kind == "activation":
        return f"activations, {case.partition('@')[2]} bytes"
    return {"column": "columns, one sample"}.get(kind, kind)


def groups(results: dict) -> str:
    """How many rows of each group are behind, and the worst of them."""
    by_group: dict[str, list[Row]] = {}
    for row in results["rows"]:
        if row["ratio"]:
            by_group.setdefault(group(row), []).append(row)
    body = []
    for name, rows in by_group.items():
        worst = min(rows, key=lambda row: row["ratio"])
        where = f"{worst['case']}, f{worst['dtype'][-2:]}, {worst['threads']}T"
        body.append(
            [
                name,
                str(len(rows)),
                str(sum(row["ratio"] < 1 for row in rows)),
                f"{statistics.median(row['ratio'] for row in rows):.2f}",
                f"{worst['ratio']:.2f} ({where}, {report.TITLES[worst['best']]})",
            ]
        )
    counted = sum(len(rows) for rows in by_group.values())
    behind = sum(row["ratio"] < 1 for rows in by_group.values() for row in rows)
    return (
        f"A peer is ahead in {behind} of {counted} rows; "
        "[performance_table.md](performance_table.md) has each of them.\n\n"
        + report.table(["rows", "how many", "behind", "median ratio", "lowest"], body)
    )


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


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = results_file.read(Path(sys.argv[1]))
    fill(ROOT / "README.md", {"selection": selection(results)})
    fill(
        ROOT / "docs" / "performance.md",
        {
            "stamp": report.stamp(results),
            "goals": report.goal_table(results),
            "groups": groups(results),
        },
    )
    (ROOT / "docs" / "performance_table.md").write_text(
        "# Speed: every row\n\n"
        "Written by [bench/publish.py](../bench/publish.py); "
        "[performance.md](performance.md) has the story.\n\n" + report.markdown(results),
        encoding="utf-8",
    )
    pictures.draw(results, ROOT / "docs" / "images")
    return 0


if __name__ == "__main__":
    sys.exit(main())

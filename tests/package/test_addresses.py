"""What a package index shows of README.md and pyproject.toml: addresses that lead somewhere from there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from pages import README, ROOT

SCRIPT = ROOT / ".ci" / "addresses.py"
if not SCRIPT.exists():
    pytest.skip("no .ci here, as in a source distribution", allow_module_level=True)
ADDRESS, TAG = "https://github.com/example/fastlayer", "v1.2.3"
URLS = {
    "Homepage": ADDRESS,
    "Documentation": f"{ADDRESS}/blob/{TAG}/docs/guide.md",
    "Source": f"{ADDRESS}/tree/{TAG}",
    "Issues": f"{ADDRESS}/issues",
    "Changelog": f"{ADDRESS}/blob/{TAG}/CHANGELOG.md",
}


def run(folder, address=ADDRESS, tag=TAG):
    command = [sys.executable, str(SCRIPT), address, tag, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def checkout(tmp_path):
    """Enough of a copy: what README.md may link to, and the two files that change."""
    folder = tmp_path / "checkout"
    apart = shutil.ignore_patterns(
        *("build", "*cache*", ".git", "*.so", "*.pyd", "generated", "cpp", "tests")
    )
    shutil.copytree(ROOT, folder, ignore=apart)
    for name in ("cpp", "tests"):
        (folder / name).mkdir()
    return folder


def test_the_addresses_of_this_project(checkout):
    before = files(checkout)
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    after = files(checkout)
    assert {name.name for name in after if after[name] != before.get(name)} == {
        "README.md",
        "pyproject.toml",
    }
    assert after.keys() == before.keys()

    old, new = README.read_text("utf-8"), (checkout / "README.md").read_text("utf-8")
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", new, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(!?)\[[^\[\]]*\]\(([^)\s]+)", prose)
    found += [("!", url) for url in re.findall(r'src(?:set)?="([^"]+)', prose)]
    assert len(found) > 10
    for mark, url in found:
        own = re.fullmatch(rf"{ADDRESS}/(raw|blob|tree)/{TAG}/([^#]+)(#.*)?", url)
        if not own:
            assert url.startswith("https://")
            continue
        target = ROOT / own[2]
        assert own[1] == ("raw" if mark else "tree" if target.is_dir() else "blob")
        assert target.exists()
    assert re.sub(rf"{ADDRESS}/(?:raw|blob|tree)/{TAG}/", "", new) == old

    old, new = ((d / "pyproject.toml").read_text("utf-8") for d in (ROOT, checkout))
    table = "\n[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in URLS.items())
    assert new.count(table) == 1
    assert new.replace(table, "") == old
    if sys.version_info >= (3, 11):
        import tomllib

        told = tomllib.loads(new)
        assert told["project"].pop("urls") == URLS
        assert told == tomllib.loads(old)
    for url in URLS.values():
        path = re.match(rf"{ADDRESS}/blob/{TAG}/(.+)", url)
        assert path is None or (ROOT / path[1]).is_file()

    assert run(checkout).returncode == 0
    assert files(checkout) == after  # a second time there is nothing to do


@pytest.fixture
def small(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("docs/a.md", "docs/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "pyproject.toml").write_text("[project]\n\n[project.optional-dependencies]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[`a`[0]](docs/a.md#b)", f"[`a`[0]]({ADDRESS}/blob/{TAG}/docs/a.md#b)"),
        ('[a](docs/a.md "title")', f'[a]({ADDRESS}/blob/{TAG}/docs/a.md "title")'),
        ("[a](<docs/>)", f"[a](<{ADDRESS}/tree/{TAG}/docs/>)"),
        (
            "[![a](docs/b.png)](docs/a.md)",
            f"[![a]({ADDRESS}/raw/{TAG}/docs/b.png)]({ADDRESS}/blob/{TAG}/docs/a.md)",
        ),
        (
            '<a href="docs/a.md"><img alt="b" src="docs/b.png">',
            f'<a href="{ADDRESS}/blob/{TAG}/docs/a.md"><img alt="b" src="{ADDRESS}/raw/{TAG}/docs/b.png">',
        ),
        *(
            (same, same)
            for same in (
                "[a](https://a.org/b) [b](#c) [d](mailto:e@f.org)",
                "`net[0](x)` and ``a`[0](x)`` <!-- [a](b) -->",
                "```python\nnet[0](images)\n```\n",
            )
        ),
    ],
)
def test_links_of_all_kinds(small, given, expected):
    (small / "README.md").write_text(given)
    done = run(small)
    assert done.returncode == 0, done.stderr
    assert (small / "README.md").read_text() == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[a](docs/c.md)", "links to docs/c.md, which is not in the checkout"),
        ("![a](docs/c.png)", "links to docs/c.png, which is not"),
        ("[a](../../etc/passwd)", "which is not in the checkout"),
        ("[a](..)", "which is not in the checkout"),
        ("[a](/etc)", "which is not in the checkout"),
        ('<source srcset="docs/b.png 1x, docs/b.png 2x">', "which is not in the checkout"),
        ("[a][b]\n\n[b]: docs/a.md\n", "links by reference"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(small, given, told):
    (small / "README.md").write_text(given)
    before = files(small)
    done = run(small)
    assert done.returncode == 1
    assert told in done.stderr
    assert files(small) == before


@pytest.mark.parametrize(
    ("address", "tag"),
    [
        ("http://github.com/a/b", TAG),
        (f"{ADDRESS}/", TAG),
        ("https://github.com/a", TAG),
        ('https://github.com/a/b"', TAG),
        (ADDRESS, "v1 2"),
        (ADDRESS, ""),
    ],
)
def test_addresses_that_are_none(small, address, tag):
    (small / "README.md").touch()
    before = files(small)
    assert "is no address" in run(small, address, tag).stderr
    assert files(small) == before


def test_other_addresses_are_not_overwritten(small):
    (small / "README.md").write_text("[a](docs/a.md)")
    assert run(small).returncode == 0
    before = files(small)
    assert "has other addresses" in run(small, tag="v2").stderr
    assert files(small) == before


def test_what_is_published_is_built_with_addresses():
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8")
    jobs = re.split(r"^  (?=\w+:\n)", workflow.partition("\njobs:\n")[2], flags=re.MULTILINE)[1:]
    assert [job.partition(":")[0] for job in jobs] == ["sdist", "wheels"]
    for job, build in zip(jobs, ("python -m build", "pypa/cibuildwheel@"), strict=True):
        assert 0 < job.find("python .ci/addresses.py") < job.find(build)

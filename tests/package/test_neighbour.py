"""Installed beside the other project named fastlayer, in either order, and the way out of it; commands.

Wheels are made by hand, of a stand-in for the other project and of the package under test, and pip
puts them into environments of their own. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastlayer as fl
from fastlayer import _core, _neighbour

ROOT = Path(__file__).parents[2]
IN_THEIR_HANDS = "AttributeError: module 'fastlayer' has no attribute 'relu'"
OTHER = {
    "fastlayer/__init__.py": b"WHO = 'the other project'\n",
    "fastlayer/__main__.py": b"print(42)\n",
    "fastlayer/generator.py": b"x = 1\n",
    "fastlayer/config.py": b"y = 2\n",  # which is a name of ours too
    "fastlayer/cli.py": b"def main():\n    print('the other project')\n",
}
# Both have a command of this name, the other project since its version 0.1.
THEIR_COMMANDS = "[console_scripts]\nfastlayer = fastlayer.cli:main\n"
OUR_COMMANDS = "[console_scripts]\n" + "".join(
    f"{name} = {target}\n"
    for name, target in re.findall(
        r'^(\S+) = "(fastlayer\.\S+:main)"',
        (ROOT / "pyproject.toml").read_text("utf-8"),
        re.MULTILINE,
    )
)
# Python takes the folder, not our errors.py, wherever both are.
HIDING = {**OTHER, "fastlayer/errors/__init__.py": b""}
CLEAN = "import fastlayer as fl; assert fl.relu([-1.0, 2.0]).tolist() == [0.0, 2.0]"
# The folder that NumPy is in may hold a fastlayer too.
LENT = (
    "import sys; from importlib.machinery import PathFinder; sys.meta_path.append(type('Lent', (), "
    "{'find_spec': lambda name, path, target=None: "
    f"PathFinder.find_spec(name, [{str(Path(np.__file__).parents[1])!r}]) if name == 'numpy' else None"
    "}))\n"
)
WARNING = re.compile(
    r"<string>:2: RuntimeWarning: two distributions share .*fastlayer: fastlayer 3\.7, which is "
    r"another project, and fastlayer-nn, which this is\. .* Remedy: (.*)\n"
)


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = {
        **files,
        f"{info}/entry_points.txt": (
            OUR_COMMANDS if name == "fastlayer_nn" else THEIR_COMMANDS
        ).encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    folder.mkdir()
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(path, content)
    return made


def our_files() -> dict[str, bytes]:
    """The files of the package under test, and the libraries that belong to it."""
    package, extension = Path(fl.__file__).parent, Path(_core.__file__)
    libraries = extension.parents[1] / "fastlayer_nn.libs"
    places = {f: f"fastlayer/{f.relative_to(package).as_posix()}" for f in package.rglob("*")}
    places |= {f: f"{libraries.name}/{f.name}" for f in libraries.glob("*")}
    places[extension] = f"fastlayer/{extension.name}"  # elsewhere in an editable installation
    return {
        place: file.read_bytes()
        for file, place in places.items()
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    return {
        "ours": wheel(folder / "ours", "fastlayer_nn", "0.1.0", our_files()),
        "other": wheel(folder / "other", "fastlayer", "3.7", OTHER),
        "hiding": wheel(folder / "hiding", "fastlayer", "3.7", HIDING),
    }


class Environment:
    """A fresh one, to which NumPy is lent."""

    def __init__(self, folder: Path) -> None:
        assert importlib.util.find_spec("pip"), "pip is missing: python -m ensurepip"
        builder = venv.EnvBuilder(with_pip=False, symlinks=os.name == "posix")
        self.folder, self.python = folder, builder.ensure_directories(folder).env_exe
        builder.create(folder)

    def _run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        without = ("PYTHONPATH", "PYTHONWARNINGS")
        return subprocess.run(
            command,
            env={key: value for key, value in os.environ.items() if key not in without} | more,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", self.python, "--no-input", "-q"]
        done = self._run(*command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *wheels: Path) -> None:
        for path in wheels:
            self.pip("install", "--no-index", "--no-deps", str(path))

    def python_says(self, code: str, *options: str) -> tuple[int, str]:
        """The exit status, and what was written."""
        done = self._run(self.python, *options, "-c", LENT + code)
        return done.returncode, done.stdout + done.stderr

    def command_says(self, command: str, *arguments: str, **more: str) -> tuple[int, str, str]:
        """The same of a command that was installed."""
        packages = self.folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
        (packages / "sitecustomize.py").write_text(LENT, "utf-8")
        done = self._run(str(Path(self.python).parent / command), *arguments, **more)
        return done.returncode, done.stdout, done.stderr

    def follow(self, advice: str, wheels: dict[str, Path]) -> None:
        """Run the commands of a message, with our wheel where the package index would be."""
        commands = advice.split("; ")
        assert len(commands) == 2
        for command in commands:
            program, action, *rest = command.split()
            assert program == "pip"
            more = ["--no-index", "--find-links", str(wheels["ours"].parent)]
            self.pip(action, *(["--yes"] if action == "uninstall" else more), *rest)


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "venv")


def warned(said: str) -> str:
    """The advice of the warning that `said` begins with."""
    found = WARNING.match(said)
    assert found, said
    return found[1]


def test_alone_nothing_is_said(environment, wheels):
    environment.install(wheels["ours"])
    assert environment.python_says(CLEAN, "-W", "error") == (0, "")


def test_ours_installed_last_runs_and_warns(environment, wheels):
    environment.install(wheels["other"], wheels["ours"])
    status, said = environment.python_says(CLEAN)
    assert status == 0
    environment.follow(warned(said), wheels)
    assert environment.python_says(CLEAN, "-W", "error") == (0, "")


def test_what_hides_a_module_of_ours_is_warned_of_before_it_does_harm(environment, wheels):
    environment.install(wheels["hiding"], wheels["ours"])
    status, said = environment.python_says(CLEAN)
    assert (status, said.splitlines()[-1][:11]) == (1, "ImportError")
    environment.follow(warned(said), wheels)
    assert environment.python_says(CLEAN, "-W", "error") == (0, "")


def test_the_other_installed_last_is_found_as_the_page_says(environment, wheels):
    """None of our code runs then. docs/install.md tells what to look at, and what to do."""
    environment.install(wheels["ours"], wheels["other"])
    page = Path(__file__).parents[2] / "docs" / "install.md"
    status, said = environment.python_says("import fastlayer; print(fastlayer.relu)")
    assert (status, said.splitlines()[-1]) == (1, IN_THEIR_HANDS)
    assert IN_THEIR_HANDS in page.read_text("utf-8")
    environment.follow(_neighbour.REMEDY, wheels)
    assert environment.python_says(CLEAN, "-W", "error") == (0, "")
    assert _neighbour.REMEDY in page.read_text("utf-8")


def test_the_other_removed_without_more_takes_files_of_ours_along(environment, wheels):
    environment.install(wheels["other"], wheels["ours"])
    environment.pip("uninstall", "--yes", "fastlayer")
    status, said = environment.python_says("import fastlayer; print(fastlayer.relu)")
    assert (status, said.splitlines()[-1]) == (1, IN_THEIR_HANDS)
    environment.follow(_neighbour.REMEDY.replace("uninstall fastlayer", "list"), wheels)


@pytest.mark.parametrize("command", ["fastlayer", "fastlayer-nn"])
def test_commands(environment, wheels, command):
    environment.install(wheels["ours"])
    assert environment.command_says(command, "--version") == (
        0,
        f"fastlayer {fl.__version__}\n",
        "",
    )
    status, said, error = environment.command_says(command, "predict")
    assert (status, said) == (2, "")
    assert error.startswith(f"usage: {command} predict ")
    status, said, error = environment.command_says(command, "summary", "no.npz")
    assert (status, said, error) == (
        1,
        "",
        f"{command} summary: no.npz: No such file or directory\n",
    )
    status, said, error = environment.command_says(command, "info", FASTLAYER_ISA="sse9")
    assert (status, said) == (1, "")
    assert error.startswith(f"{command}: FASTLAYER_ISA")
    assert error.count("\n") == 1


def test_commands_of_ours_refuse_beside_the_other(environment, wheels):
    environment.install(wheels["other"], wheels["ours"])
    for command in ("fastlayer", "fastlayer-nn"):
        status, said, error = environment.command_says(command, "info")
        assert (status, said) == (1, "")
        last = error.splitlines()[-1]
        assert last.startswith(
            f"{command}: fastlayer 3.7, which is another project, has taken files"
        )
        assert last.endswith(f"Remedy: {_neighbour.REMEDY}")
    environment.follow(_neighbour.REMEDY, wheels)
    assert environment.command_says("fastlayer", "--version")[0] == 0


def test_the_command_of_the_other_installed_last_is_theirs(environment, wheels):
    environment.install(wheels["ours"], wheels["other"])
    status, said, error = environment.command_says("fastlayer-nn", "info")
    assert (status, said) == (1, "")
    assert error.splitlines()[-1].startswith(
        "fastlayer-nn: fastlayer 3.7, which is another project"
    )
    environment.pip("uninstall", "--yes", "fastlayer")
    status, said, error = environment.command_says("fastlayer-nn", "info")
    assert (status, said) == (1, "")
    assert error.startswith("fastlayer-nn: another project has taken files of fastlayer-nn in ")
    # The other takes the command along, too; the second half of the remedy brings it back.
    assert not (Path(environment.python).parent / "fastlayer").exists()
    environment.follow(_neighbour.REMEDY.replace("uninstall fastlayer", "list"), wheels)
    assert environment.command_says("fastlayer", "--version")[0] == 0


def test_no_text_sends_anybody_to_the_other_project():
    root = Path(__file__).parents[2]
    files = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "bench").rglob("*.md")]
    files += (root / "python").rglob("*.py")
    assert len(files) > 60
    wrong = re.compile(r"pip install [^`\n;&]*\bfastlayer(?!-nn)|\bfastlayer\[")
    found = {file: wrong.findall(file.read_text("utf-8")) for file in files}
    assert not {str(file.relative_to(root)) for file, texts in found.items() if texts}


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (["fastlayer_nn-0.1.0.dist-info", "fastlayer", "fastlayer_extra-1.dist-info"], []),
        (["fastlayer-0.2.dist-info"], ["fastlayer 0.2"]),
        (["FastLayer-0.2-py3.11.egg-info"], ["fastlayer 0.2"]),
        (["fastlayer.egg-info", "fastlayer-nn.egg-info", "fastlayer-0.2.tar.gz"], []),
    ],
    ids=str,
)
def test_which_entries_of_a_folder_are_another_distribution(tmp_path, entries, found):
    for entry in entries:
        (tmp_path / entry).mkdir()
    assert _neighbour.others(str(tmp_path)) == found


def test_the_warning_names_the_other_and_the_remedy(monkeypatch):
    monkeypatch.setattr(_neighbour, "others", lambda folder: ["fastlayer 0.2"])
    with pytest.warns(RuntimeWarning, match="fastlayer 0.2, which is another project") as caught:
        _neighbour._warn()
    assert str(caught[0].message).endswith(_neighbour.REMEDY)


def test_a_place_that_is_no_folder_holds_no_other(tmp_path):
    assert _neighbour.others(str(tmp_path / "packages.zip")) == []

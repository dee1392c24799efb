"""Threads and show_config; the environment is read in processes of their own."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastlayer as fl
from fastlayer import threads as _limits


def default_in(environment):
    code = "import fastlayer as fl; t = fl.show_config(mode='dicts')['threads']; print(t['count'], t['source'], sep='|')"
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- where the number comes from


@pytest.mark.parametrize(
    ("environment", "count", "source"),
    [
        ({"FASTLAYER_NUM_THREADS": "1"}, "1", "FASTLAYER_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1"}, "1", "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1,2"}, "1", "OMP_NUM_THREADS"),
        ({"FASTLAYER_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, "1", "FASTLAYER_NUM_THREADS"),
    ],
)
def test_environment(environment, count, source):
    done = default_in(environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split("|") == [count, source]


@pytest.mark.parametrize("garbage", ["", "many", "0", "-2", "99999999999999999999"])
def test_garbage_in_omp_num_threads_is_left_to_openmp(monkeypatch, garbage):
    monkeypatch.delenv("FASTLAYER_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", garbage)
    n, source = _limits.default_threads()
    assert n >= 1
    assert source != "OMP_NUM_THREADS"


@pytest.mark.parametrize("garbage", ["many", "0", "-2", "1.5", "1,2", "99999999999999999999"])
def test_garbage_in_our_own_variable_is_an_error(monkeypatch, garbage):
    monkeypatch.setenv("FASTLAYER_NUM_THREADS", garbage)
    with pytest.raises(ValueError, match="FASTLAYER_NUM_THREADS must be a positive integer"):
        _limits.default_threads()


def test_that_error_comes_at_import():
    done = default_in({"FASTLAYER_NUM_THREADS": "many"})
    assert done.returncode == 1
    assert "FASTLAYER_NUM_THREADS must be a positive integer, got 'many'" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity(monkeypatch):
    monkeypatch.delenv("FASTLAYER_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert _limits.default_threads()[0] == 1
    finally:
        os.sched_setaffinity(0, before)


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/cpu.max": "max 100000\n",
          f"{V2}/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/cpu.max": "100000 100000\n",
          f"{V2}/a/cpu.max": "300000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/../x\n", f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/d\n", f"{V1}/d/cpu.cfs_quota_us": "250000\n",
          f"{V1}/d/cpu.cfs_period_us": "100000\n"}, 3),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/d\n", f"{V2}/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
          f"{V2}/cpu,cpuacct/cpu.cfs_period_us": "25000\n"}, 2),
        ({"proc/self/cgroup": "4:cpu:/\n", f"{V1}/cpu.cfs_quota_us": "-1\n",
          f"{V1}/cpu.cfs_period_us": "100000\n"}, None),
        ({"proc/self/cgroup": "4:cpuset:/\n", f"{V1}/cpu.cfs_quota_us": "1\n"}, None),
        ({"proc/self/cgroup": "nonsense\n0::/\n", f"{V2}/cpu.max": "nonsense\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "100000 0\n"}, None),
    ],
)  # fmt: skip
def test_cgroup_quota(tmp_path, files, quota):
    assert _limits.cgroup_quota(tree(tmp_path, files)) == quota


def test_the_smallest_limit_wins_and_is_named(monkeypatch):
    monkeypatch.setattr(_limits, "processors", lambda: 8)
    monkeypatch.setattr(_limits, "cgroup_quota", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("FASTLAYER_NUM_THREADS", "5")
    assert _limits.default_threads() == (3, "CPU quota of the control group")
    monkeypatch.setenv("FASTLAYER_NUM_THREADS", "3")
    assert _limits.default_threads() == (3, "FASTLAYER_NUM_THREADS")


def test_a_typing_error_does_not_start_a_million_threads(monkeypatch):
    monkeypatch.setattr(_limits, "processors", lambda: 1_000_000)
    monkeypatch.setattr(_limits, "cgroup_quota", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for wanted, given in (("4096", 4096), ("4097", 4096), ("999999", 4096)):
        monkeypatch.setenv("FASTLAYER_NUM_THREADS", wanted)
        assert _limits.default_threads() == (given, "FASTLAYER_NUM_THREADS")


# --- setting it


@pytest.fixture
def restored():
    before = fl.get_num_threads()
    yield before
    fl.set_num_threads(before)


def test_set_and_get(restored):
    for n in (3, 1, np.int64(2)):
        fl.set_num_threads(n)
        assert fl.get_num_threads() == n
    assert fl.show_config(mode="dicts")["threads"] == {
        "count": 2,
        "source": "fastlayer.set_num_threads",
    }


@pytest.mark.parametrize(("error", "n"), [(ValueError, 0), (ValueError, -1), (TypeError, 1.0), (TypeError, "1"), (TypeError, True), (TypeError, None)])  # fmt: skip
def test_refuses(restored, error, n):
    for call in (fl.set_num_threads, fl.num_threads):
        with pytest.raises(error, match="number of threads"):
            call(n)
    assert fl.get_num_threads() == restored


def test_context_manager_nests_restores_and_is_of_one_thread(restored):
    fl.set_num_threads(4)
    with fl.num_threads(2) as two:
        assert fl.get_num_threads() == 2
        with fl.num_threads(1), two:
            assert fl.get_num_threads() == 2
        with pytest.raises(KeyError), fl.num_threads(1):
            raise KeyError
        assert fl.get_num_threads() == 2
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fl.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [4]
    assert fl.get_num_threads() == 4
    with fl.num_threads(100):
        assert fl.get_num_threads() == 100


# --- show_config


def test_show_config_prints_what_it_returns(capsys):
    found = fl.show_config(mode="dicts")
    assert capsys.readouterr().out == ""
    assert fl.show_config() is None
    text = capsys.readouterr().out
    assert found["version"] == fl.__version__
    assert found["isa"]["active"] in found["isa"]["supported"]
    for part in (
        found["version"],
        found["isa"]["active"],
        np.__version__,
        found["threads"]["source"],
    ):
        assert part in text
    with pytest.raises(ValueError, match="mode"):
        fl.show_config(mode="print")


def test_show_config_measures_each_instruction_set_and_leaves_the_active_one(capsys):
    before = fl.show_config(mode="dicts")["isa"]
    assert "gflops" not in before
    isa = fl.show_config(mode="dicts", measure=True)["isa"]
    gflops = isa.pop("gflops")
    assert isa == before
    assert list(gflops) == isa["supported"]
    assert all(speed > 0 for speed in gflops.values())
    fl.show_config(measure=True)
    text = capsys.readouterr().out
    assert all(f" with FASTLAYER_ISA={name}" in text for name in gflops)


# --- the package


def test_everything_public_is_listed_and_there():
    assert sorted(fl.__all__) == sorted(set(fl.__all__))
    for name in fl.__all__:
        assert getattr(fl, name) is not None
    assert all(getattr(fl, n).__doc__ for n in fl.__all__ if n != "__version__")


def test_import_is_light():
    code = (
        "import sys, numpy; before = set(sys.modules); import fastlayer;"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('fastlayer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"json", "zipfile", "tempfile", "dataclasses", "inspect", "difflib", "copy", "pickle"}
    assert not heavy & set(done.stdout.split())

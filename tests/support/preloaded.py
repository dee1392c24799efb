"""Python in a process of its own, with a library of ours in front of the C library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")  # whose own malloc is preloaded


def compiled(name, folder):
    """Compile a library of this folder into another one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is missing"
    library = folder / f"{name}.so"
    source = SUPPORT / f"{name}.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def run_preloaded(library, script, *arguments, **env):
    """Run a script of this folder, which is told the library first, and return what it printed."""
    # A tracer would make calls of its own, and without memory hangs.
    untraced = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, SUPPORT / script, library, *arguments],
        env={**untraced, "LD_PRELOAD": str(library), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

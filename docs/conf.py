"""How Sphinx builds these pages: `sphinx-build -W --keep-going -b html docs build/docs`."""

from __future__ import annotations

import re
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastlayer

sys.path.insert(0, str(Path(__file__).parent / "images"))

from drawing import on_any_ground
from numpydoc.xref import DEFAULT_LINKS

project = "fastlayer"
author = "fastlayer developers"
copyright = "2026, fastlayer developers"
version = release = fastlayer.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates", "gallery"]
# Blocks without a language are pictures in letters.
highlight_language = "text"
nitpicky = True
nitpick_ignore = [("py:obj", "mmap")]  # a parameter that is also the name of a module
# Of other projects.
nitpick_ignore_regex = [("py:.*|term", r"(dask|keras|numpy|onnx|sklearn|torch)([.:].*)?")]
suppress_warnings = [
    "myst.header",  # the tables that bench/report.py writes skip a level
    "config.cache",  # the function that sets the colours of pictures
]

myst_enable_extensions = ["colon_fence"]
# Headings get the anchors that Git hosts give them.
myst_heading_anchors = 3

# `name` in a docstring links to what it names, if it names something.
default_role = "autolink"
autosummary_generate = True
autosummary_ignore_module_all = False
# The types of parameters that have a page.
numpydoc_xref_param_type = True
DEFAULT_LINKS.clear()  # nobody has to look up what an int is
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {
    "array_like": ":term:`array_like <numpy:array_like>`",
    "ndarray": "numpy.ndarray",
    "Generator": "numpy.random.Generator",
    **{name: f"fastlayer.{name}" for name in fastlayer.__all__ if name[0].isupper()},
}
# Types and shapes are in the text of each parameter.
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
# The template of a class lists the members itself.
numpydoc_show_class_members = False

# Names of these projects link to their pages, where the network lets a build ask what they have.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
}
intersphinx_disabled_reftypes = ["*"]
try:
    with urllib.request.urlopen("https://numpy.org/doc/stable/objects.inv", timeout=5):
        pass
except OSError:
    print("offline: no links to the pages of NumPy, Python and scikit-learn")
    intersphinx_mapping = {}

copybutton_exclude = ".linenos, .gp, .go"


def pictures(gallery_conf: Any, page: Any) -> None:
    """Before each page of the gallery."""
    on_any_ground()


def can_run(script: Path) -> bool:
    """Whether all that a page imports is installed; it is shown in any case."""
    imported = re.findall(
        r"^(?:import|from) (\w+(?:\.\w+)?)", script.read_text("utf-8"), re.MULTILINE
    )
    try:
        return all(find_spec(name) for name in imported)
    except ModuleNotFoundError:
        return False


gallery = Path(__file__).parent / "gallery"
pages = [path.stem for path in sorted(gallery.glob("*.py")) if can_run(path)]
sphinx_gallery_conf = {
    "examples_dirs": str(gallery),
    "gallery_dirs": "generated/gallery",
    "filename_pattern": rf"/({'|'.join(pages)})\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": (pictures,),
    "abort_on_example_error": True,
    "show_signature": False,
    "min_reported_time": 1e9,  # times of a build mean nothing
    "write_computation_times": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"fastlayer {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_sidebars = {page: [] for page in ("index", "performance", "changelog")}
html_theme_options = {
    "logo": {"text": "fastlayer"},
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def link_files(app: Any, docname: str, source: list[str]) -> None:
    """Let links to Markdown files outside of docs/ lead to the files, which are no pages here."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+\.md)(#[^)]*)?\)", r"](path:\1)", source[0])


def source_of(app: Any, module: str, name: str) -> str | None:
    """The module with the code of what is public as `fastlayer.NAME`."""
    thing = sys.modules[module]
    for part in name.split("."):
        thing = getattr(thing, part, None)
    files = {m.__file__: key for key, m in sys.modules.items() if getattr(m, "__file__", None)}
    for code in (thing, *getattr(thing, "__dict__", {}).values()):
        if hasattr(code, "__code__"):
            return files.get(code.__code__.co_filename)
    return None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("viewcode-follow-imported", source_of)
    app.connect("source-read", link_files)

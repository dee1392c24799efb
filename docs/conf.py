"""How Sphinx builds these pages: `sphinx-build -W --keep-going -b html docs build/docs`."""

from __future__ import annotations

import re
from typing import Any

import fastlayer

project = "fastlayer"
author = "fastlayer developers"
copyright = "2026, fastlayer developers"
version = release = fastlayer.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]
# Blocks without a language are pictures in letters.
highlight_language = "text"
nitpicky = True
nitpick_ignore = [
    *(("py:obj", f"numpy.{name}") for name in ("multiply", "show_config")),  # of another project
    ("py:obj", "mmap"),  # a parameter that is also the name of a module
]
# Of other projects: they can be named where they are installed.
nitpick_ignore_regex = [("py:obj", r"(dask|keras|onnx|sklearn|torch)(\..*)?")]
suppress_warnings = ["myst.header"]  # the tables that bench/report.py writes skip a level

# Headings get the anchors that Git hosts give them.
myst_heading_anchors = 3

# `name` in a docstring links to what it names, if it names something.
default_role = "autolink"
autosummary_generate = True
autosummary_ignore_module_all = False
# Types and shapes are in the text of each parameter.
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
# The template of a class lists the members itself.
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"fastlayer {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
# The reference alone is deep enough for a list at the side.
html_sidebars = {"*": [], "api": ["sidebar-nav-bs"]}
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


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", link_files)

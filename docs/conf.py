"""How Sphinx builds these pages: `sphinx-build -W --keep-going -b html docs build/docs`."""

from __future__ import annotations

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
nitpicky = True

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
html_theme_options = {
    "logo": {"text": "fastlayer"},
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

# SPDX-License-Identifier: GPL-2.0
"""Sphinx's settings for Documentation/."""

project = "kfabric"
author = "The kfabric developers"
extensions = []
master_doc = "index"
highlight_language = "none"
html_theme = "alabaster"
html_theme_options = {"description": "In-kernel fabric framework", "fixed_sidebar": True}
html_show_copyright = False
html_copy_source = False
nitpicky = True

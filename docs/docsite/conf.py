"""Settings of the documentation site; ``scripts/docs_site.sh`` builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import yaml
from docutils import nodes

# The script names the checkout; the site is built in a folder of its own.
GALAXY = yaml.safe_load((Path(__file__).parent / "galaxy.yml").read_text(encoding="utf-8"))

project = "glm.fleet"
author = "glm.fleet contributors"
version = release = GALAXY["version"]
extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# Links such as `hosts.md#before-a-restart` go to headings.
myst_heading_anchors = 4
pygments_style = "ansible"
html_theme = "sphinx_ansible_theme"
html_title = f"glm.fleet {release}"
html_show_sphinx = False
html_theme_options = {"topbar_links": {}}
html_use_index = False
html_copy_source = False

# Labels of Ansible's own documentation that the reference uses. Written here, so that a build needs no network.
ANSIBLE_DOCS = "https://docs.ansible.com/projects/ansible/latest"
ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def ansible_page(label: str) -> Optional[str]:
    """The address of a label of Ansible's own documentation; None for any other label."""
    if label in ANSIBLE_PAGES:
        return f"{ANSIBLE_DOCS}/{ANSIBLE_PAGES[label]}"
    collections, _dot, rest = label.partition(".")
    if collections == "ansible_collections" and rest.startswith("ansible.builtin."):
        return f"{ANSIBLE_DOCS}/collections/{rest.replace('.', '/')}.html"
    return None


def link_ansible(_app: Any, _env: Any, node: Any, content: nodes.Node) -> Optional[nodes.Node]:
    """Sphinx asks here for labels that no page of this site has."""
    page = ansible_page(node["reftarget"])
    return nodes.reference("", "", content, refuri=page) if page else None


def setup(app: Any) -> None:
    """Sphinx calls this when it starts."""
    app.connect("missing-reference", link_ansible)

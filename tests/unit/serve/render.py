"""Render the collection's templates with Jinja as ansible's template module sets it up, and the real filters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jinja2
from ansible.plugins.filter.core import comment, get_hash

from ansible_collections.glm.fleet.plugins.filter.replica import FilterModule

ROOT = Path(__file__).parents[3]


# As `getent group` has them on a host whose numbers are not the image's.
GROUPS = {"video": ["x", "44", ""], "render": ["x", "993", ""]}


def render(name: str, plan: dict[str, Any], api_key: str = "glm-test-key") -> str:
    """The text of ``templates/<name>.j2`` for a plan."""
    return render_host(name, plan=plan, api_key=api_key, admin_key="glm-test-admin", host_groups=GROUPS)


def render_host(name: str, **variables: Any) -> str:
    """The text of ``templates/<name>.j2`` with ``variables``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update({f"glm.fleet.{key}": door for key, door in FilterModule().filters().items()})
    environment.filters.update(comment=comment, dirname=os.path.dirname, to_json=json.dumps, hash=get_hash)
    return environment.get_template(f"{name}.j2").render(**variables)

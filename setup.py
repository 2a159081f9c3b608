"""Package the collection as a wheel, so that ``pip install .`` puts it where ansible-core looks.

ansible-core searches ``ansible_collections`` below every entry of ``sys.path``; the wheel therefore carries
``ansible_collections/glm/fleet`` made from this directory, without any ``__init__.py`` above it.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "ansible_collections.glm.fleet"
CONTENT = ("catalog", "changelogs", "meta", "playbooks", "plugins", "roles", "templates")
FILES = ("galaxy.yml", "requirements.yml", "README.md", "LICENSE", "ansible.cfg")
COMMAND = "glm_fleet"
ROOT = Path(__file__).parent
# What `glm-fleet init` copies: inventories/<cloud>/<cloud>.yml. The rehearsal's needs a checkout.
INVENTORIES = [f"inventories/{path.name}/{path.name}.yml" for path in (ROOT / "inventories").iterdir()]
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))


class build_collection(build_py):
    """Copy the collection's files as data; of the top level only the command is an importable module."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        if package != COMMAND:
            return []
        return [(package, path.stem, str(path)) for path in sorted(Path(package_dir).glob("*.py"))]


setup(
    name="glm-fleet",
    version=GALAXY["version"],
    description=GALAXY["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[PACKAGE, COMMAND],
    package_dir={PACKAGE: "."},
    package_data={PACKAGE: [*FILES, *INVENTORIES, *(f"{name}/**/*" for name in CONTENT)]},
    entry_points={"console_scripts": ["glm-fleet = glm_fleet.cli:main"]},
    exclude_package_data={PACKAGE: ["**/__pycache__/*", "**/*.pyc"]},
    cmdclass={"build_py": build_collection},
    install_requires=[
        "ansible-core>=2.18",
        "cryptography>=42",
        "jinja2>=3.1.2",
        "paramiko>=3.4",
        "PyYAML>=6.0",
        "requests>=2.31",
    ],
    extras_require={"benchmark": ["matplotlib>=3.8"], "store": ["boto3>=1.36"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Systems Administration",
    ],
)

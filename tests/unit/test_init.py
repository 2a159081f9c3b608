"""The working folder that ``glm-fleet init`` makes; scripts/package_check.sh plans in one that a wheel made."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml

from glm_fleet import cli

ROOT = Path(__file__).parents[2]
TABLE = yaml.safe_load((ROOT / "catalog/variables.yml").read_text("utf-8"))["variables"]


def test_the_folder_has_what_a_first_command_needs() -> None:
    made = cli.contents(ROOT)
    assert sorted(made) == ["README.md", "ansible.cfg", "gmi.yml", "group_vars/all.yml", "lambda.yml"]
    assert yaml.safe_load(made["lambda.yml"])["plugin"] == "glm.fleet.lambda_cloud"
    assert yaml.safe_load(made["gmi.yml"])["plugin"] == "glm.fleet.gmi_cloud"


def test_its_ansible_cfg_is_the_checkout_s_without_its_place_of_collections() -> None:
    ours, made = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    ours.read(ROOT / "ansible.cfg")
    text = cli.contents(ROOT)["ansible.cfg"]
    made.read_string(text)
    ours.remove_option("defaults", "collections_path")
    assert made == ours
    assert "clone" not in text
    assert made["defaults"]["interpreter_python"] == "/usr/bin/python3", "never what a shell's PATH has first"


def test_group_vars_are_comments_that_show_every_variable() -> None:
    text = cli.contents(ROOT)["group_vars/all.yml"]
    assert yaml.safe_load(text) is None
    shown = {
        name: next((line for line in text.splitlines() if line.startswith(f"# {name}:")), None)
        for name, entry in TABLE.items()
        if not entry.get("replaced_by") and not entry.get("header") and entry["section"] != "host"
    }
    assert None not in shown.values()
    values = {name: yaml.safe_load(str(line)[2:])[name] for name, line in shown.items()}
    for name, value in values.items():
        entry = TABLE[name]
        if entry.get("default") not in (None, "", [], {}) and not entry.get("computed"):
            assert value == entry["default"]
    for name in (name for name, entry in TABLE.items() if entry.get("header") and not entry.get("replaced_by")):
        assert f"-e {name}=" in text and f"# {name}:" not in text


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("mine: 1\n", "utf-8")
    with pytest.raises(cli.InitError, match=r"has group_vars/all\.yml already"):
        cli.write(tmp_path, cli.contents(ROOT))
    assert [path.name for path in tmp_path.iterdir()] == ["group_vars"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(cli.InitError, match=r"file: (Not a directory|File exists)"):
        cli.write(tmp_path / "file", {"ansible.cfg": ""})

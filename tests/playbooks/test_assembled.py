"""What runs of Ansible in tests keep for each other (tests/compiled) is what each would have made."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.playbooks.fleet import ROOT

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Say it
      acme.toys.say:
    - name: Say a word of the run
      ansible.builtin.debug:
        msg: "{{ word | upper }} {{ 1 + 1 }}"
    - name: Fail where a word is missing
      ansible.builtin.assert:
        that: word is defined
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.acme.toys.plugins.module_utils.words import WORDS

module = AnsibleModule({})
module.exit_json(msg=WORDS)
"""


class Controller:
    """A collection of one module, and a playbook that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.kept.mkdir()
        plugins = folder / "ansible_collections/acme/toys/plugins"
        (plugins / "modules").mkdir(parents=True)
        (plugins / "module_utils").mkdir()
        (plugins / "modules" / "say.py").write_text(MODULE, "utf-8")
        self.words = plugins / "module_utils" / "words.py"
        (folder / "play.yml").write_text(PLAY, "utf-8")
        (folder / "ansible.cfg").write_text("[defaults]\n", "utf-8")

    def says(self, words: str, word: str = "hello", play: str = "play.yml") -> bool:
        """Whether a run says so."""
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT / "tests/compiled"), "GLM_COMPILED": str(self.kept),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": "ansible.cfg",
        }  # fmt: skip
        command = ["ansible-playbook", "-v", "-i", "localhost,", "-e"]
        done = subprocess.run(
            [*command, f"ansible_python_interpreter={sys.executable}", "-e", f"word={word}", play],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return f'"msg": "{words}"' in done.stdout and f'"msg": "{word.upper()} 2"' in done.stdout

    def files(self) -> dict[Path, Any]:
        return {file: pickle.loads(file.read_bytes()) for file in self.kept.glob("*.pickle")}


def test_a_module_is_put_together_once_and_again_when_a_file_of_it_changes(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.words.write_text('WORDS = "first"\n', "utf-8")
    assert controller.says("first")
    modules = {
        file: value for file, value in controller.files().items() if isinstance(value, dict) and "entries" in value
    }
    assert len(modules) == 1, "one for the only module"
    (file, value), before = modules.popitem(), len(controller.files())
    # What is kept is what runs: another word in it is said.
    other = [(path, content.replace(b"first", b"other")) for path, content in value["entries"]]
    file.write_bytes(pickle.dumps({**value, "entries": other}))
    assert controller.says("other") and len(controller.files()) == before
    # A file of it changes, and another that is kept is damaged.
    controller.words.write_text('WORDS = "a second"\n', "utf-8")
    for damaged in controller.files().keys() - {file}:
        damaged.write_bytes(damaged.read_bytes()[:-20])
    assert controller.says("a second")


def test_templates_and_yaml_are_read_once_and_say_where_they_are_from(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.words.write_text('WORDS = "first"\n', "utf-8")
    text = (tmp_path / "play.yml").read_text("utf-8")
    assert controller.says("first")
    before = controller.files()
    assert controller.says("first", "bye") and controller.files().keys() == before.keys()
    kept = [repr(value) for value in before.values() if isinstance(value, list)]
    assert any("acme.toys.say" in value for value in kept), "the play"
    assert any(isinstance(value, bytes) and b"upper" in value for value in before.values()), "the template"
    # The same text elsewhere is another: errors name its file.
    (tmp_path / "other.yml").write_text(text, "utf-8")
    assert controller.says("first", play="other.yml")
    assert len(controller.files()) == len(before) + 1

"""The inventory of a rehearsal and the simulator agree on where a world is."""

from __future__ import annotations

import os
import subprocess

import pytest

from simulator.settings import CHECKOUT, Settings

FOLDER = CHECKOUT / "inventories/rehearsal"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"GLM_REHEARSAL_WORLD": "3"},
        {"GLM_REHEARSAL_WORLD": "3", "GLM_REHEARSAL_API_PORT": "9000", "GLM_REHEARSAL_DIR": "~/elsewhere"},
    ],
)
def test_the_rehearsal_inventory_finds_the_world_that_the_environment_names(given: dict[str, str]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GLM_REHEARSAL_")} | given
    command = ["ansible", "localhost", "-i", str(FOLDER / "localhost.yml"), "-e", f"@{FOLDER}/rehearsal.lambda.yml"]
    # What ssh would use is not there, and not asked for.
    command += ["-e", "ansible_ssh_private_key_file=none", "-m", "debug"]
    command += ["-a", "msg={{ [base_url, rehearsal_file, known_hosts_file] | join(' ') }}"]
    done = subprocess.run(command, env=environ, cwd=CHECKOUT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    expected = Settings.from_environment(environ)
    known_hosts = f"{given.get('GLM_REHEARSAL_DIR') or os.path.relpath(expected.state_dir, FOLDER)}/known_hosts"
    # Where Ansible breaks the line depends on the length of the paths.
    assert f"msg: {expected.api_url} {expected.state_dir}/vars.yml {known_hosts}" in " ".join(done.stdout.split())

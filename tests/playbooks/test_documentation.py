"""The documentation can be rendered and run: every plugin by ansible-doc, the examples of the inventory pages."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import pytest
import yaml

from simulator.gmi_cloud import server as gmi_server
from simulator.gmi_cloud.world import INFERENCE_SCOPE
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import running

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KINDS = {
    "module": "modules/*.py", "inventory": "inventory/*.py", "callback": "callback/*.py", "lookup": "lookup/*.py",
    "filter": "filter/*.yml",
}  # fmt: skip
# As the examples have it.
CLUSTER = "0123456789abcdef0123456789abcdef"
GMI_KEY, RESEARCH_KEY = "eyJh.cluster.key", "eyJh.research.key"


def names(pattern: str) -> list[str]:
    return sorted(f"glm.fleet.{path.stem}" for path in (ROOT / "plugins").glob(pattern) if path.stem != "__init__")


@pytest.mark.parametrize("kind", [*KINDS, "role"])
def test_ansible_doc_renders_everything_there_is(kind: str) -> None:
    wanted = names(KINDS[kind]) if kind != "role" else [f"glm.fleet.{path.name}" for path in (ROOT / "roles").iterdir()]
    assert wanted
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PAGER": "cat"}
    done = subprocess.run(
        [str(BIN / "ansible-doc"), "-t", kind, *wanted], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # ansible-core 2.21 warns of a collection of its own.
    told = [line for line in done.stderr.splitlines() if "_protomatter" not in line]
    assert not [line for line in told if "WARNING" in line or "ERROR" in line], done.stderr
    title = "> ROLE: *{}*" if kind == "role" else f"> {kind.upper()} {{}}"
    assert [name for name in wanted if title.format(name) not in done.stdout] == []


def blocks(page: str, *languages: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", text, re.DOTALL)


class Newcomer:
    """Somebody with a key of both clouds and an empty home who types what a page says."""

    def __init__(self, home: Path, lambda_url: str, lambda_key: str, gmi_url: str) -> None:
        self.home = home
        (home / ".lambda").mkdir()
        (home / ".lambda" / "serving.key").write_text(f"{lambda_key}\n", "utf-8")
        (home / ".lambda" / "serving.key").chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAMBDA", "GMI", "ANSIBLE"))}
        self.environment = {
            **kept, "HOME": str(home), "LAMBDA_API_URL": lambda_url, "LAMBDA_API_KEY": lambda_key,
            "LAMBDA_API_KEY_RESEARCH": lambda_key, "GMI_API_URL": gmi_url, "GMI_API_KEY": GMI_KEY, "COLUMNS": "400",
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        }  # fmt: skip

    def run(self, *command: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    with running(Config(port=0)) as (_url, cloud), gmi_server.running() as gmi:
        cloud.seed(count=2, name="glm-default-{n}", tags={"glm-fleet": "default"})
        cloud.seed(name="head-1", instance_type="cpu_4x_general", cluster_id=CLUSTER)
        cloud.seed(count=2, name="compute-{n}", cluster_id=CLUSTER, omit=["ip"])
        gmi.world.add_key(GMI_KEY)
        gmi.world.add_key("eyJh.inference", INFERENCE_SCOPE)
        gmi.world.add_key(RESEARCH_KEY, organization="org-0123")
        gmi.world.add_elastic_ip("203.0.113.8", gmi.world.add_container("glm-prod-1"))
        gmi.world.add_container("glm-thai-1", idc="sim-thailand-1")
        yield Newcomer(tmp_path, cloud.base_url, cloud.api_key, gmi.base_url)


@pytest.mark.parametrize("cloud", ["lambda", "gmi"])
def test_examples_of_the_inventory_pages_list_hosts(newcomer: Newcomer, cloud: str) -> None:
    texts = blocks(f"inventory_{cloud}.md", "yaml")
    plugins = [yaml.safe_load(path) for path in texts]
    # A block without the plugin's name is an addition to any other.
    for number, (text, content) in enumerate(zip(texts, plugins)):
        own = text if "plugin" in content else f"plugin: glm.fleet.{cloud}_cloud\n{text}"
        file = newcomer.home / f"{number}.{cloud}.yml"
        file.write_text(own, "utf-8")
        code, output = newcomer.run("ansible-inventory", "-i", str(file), "--graph")
        assert code == 0 and f"@{cloud}" in output, f"{text}\n{output}"


@pytest.mark.parametrize("cloud", ["lambda", "gmi"])
def test_examples_of_the_plugins_parse(newcomer: Newcomer, cloud: str) -> None:
    source = (ROOT / "plugins" / "inventory" / f"{cloud}_cloud.py").read_text("utf-8")
    (examples,) = re.findall(r'EXAMPLES = r"""\n(.*?)"""', source, re.DOTALL)
    key = RESEARCH_KEY if cloud == "gmi" else newcomer.environment["LAMBDA_API_KEY"]
    for name in re.findall(r"~/(\.(?:lambda|gmi)/[\w.]+)", examples):
        (newcomer.home / name).parent.mkdir(exist_ok=True)
        (newcomer.home / name).write_text(GMI_KEY if cloud == "gmi" else key, "utf-8")
        (newcomer.home / name).chmod(0o600)
    for name in re.findall(r"ca_path: ~/([\w./-]+)", examples):
        (newcomer.home / name).parent.mkdir(exist_ok=True)
        shutil.copy(certifi.where(), newcomer.home / name)
    newcomer.environment.update(dict.fromkeys(re.findall(r"api_key_env: (\w+)", examples), key))
    for number, text in enumerate(part for part in examples.split("---\n") if part.strip()):
        file = newcomer.home / f"{number}.{cloud}.yml"
        file.write_text(text, "utf-8")
        code, output = newcomer.run("ansible-inventory", "-i", str(file), "--graph")
        assert code == 0 and f"@{cloud}" in output, f"{text}\n{output}"


# What each line that the pages tell to type does; None: a whole deploy, which needs hosts (tests/integration).
LINES: dict[str, Callable[[int, str], bool] | None] = {
    "ansible-inventory -i lambda --graph": lambda code, output: code == 0 and "glm-default-0" in output,
    "ansible-inventory -i gmi --graph": lambda code, output: code == 0 and "glm-prod-1" in output,
    "ansible-playbook deploy_glm51.yml -i gmi": None,
    """ansible-playbook deploy_glm51.yml -i gmi -e '{"glm_allowed_countries": ["US", "TW"]}'""": lambda code, output: (
        code != 0
        and "expected every host in US, TW (glm_allowed_countries), found glm-thai-1 (TH)" in output
        and "PLAY [Plan every host]" not in output
    ),
}


@pytest.mark.one_core
def test_every_line_of_the_inventory_pages_does_what_it_says(newcomer: Newcomer) -> None:
    lines = [
        line.partition("  #")[0].strip()
        for page in ("inventory_lambda.md", "inventory_gmi.md")
        for block in blocks(page, "sh", "console")
        for line in block.splitlines()
        if not line.startswith("export ")
    ]
    assert set(lines) == set(LINES), "say here what each line does"
    for line in lines:
        as_told = LINES[line]
        if as_told:
            code, output = newcomer.run(*shlex.split(line))
            assert as_told(code, output), f"{line}\n{output}"


@pytest.mark.parametrize("inventory", [pytest.param("gmi", marks=pytest.mark.one_core), "localhost,"])
def test_nothing_is_rented_that_no_inventory_would_show(newcomer: Newcomer, inventory: str) -> None:
    asked = ["-e", "glm_launch=true", "-e", '{"glm_launch_regions": ["us-east-1"], "glm_launch_ssh_keys": ["my-key"]}']
    code, output = newcomer.run("ansible-playbook", "deploy.yml", "-i", inventory, *asked)
    assert code != 0 and "expected an inventory of Lambda Cloud" in output and "add -i lambda" in output, output


def test_a_key_of_the_wrong_scope_is_explained_by_a_playbook(newcomer: Newcomer) -> None:
    newcomer.environment["GMI_API_KEY"] = "eyJh.inference"
    code, output = newcomer.run("ansible-playbook", "deploy.yml", "-i", "gmi")
    assert code != 0 and "HTTP 401" in output and "Cluster Engine scope (ce_resource)" in output, output
    assert "PLAY [" not in output

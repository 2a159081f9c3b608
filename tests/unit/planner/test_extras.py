"""Variables and mounts of the user's own around an engine: what is taken, and what the plan owns or must not print."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica

INTENT = Intent("GLM-5.1", "B200", 8)


def plan(**more: Any) -> Plan:
    return planner.make(dataclasses.replace(INTENT, **more), catalog.load())


def test_variables_of_the_user_win_and_null_removes_one() -> None:
    before = plan()["env"]
    made = plan(
        engine_env={"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0", "NCCL_P2P_LEVEL": "NVL", "DO_NOT_TRACK": None, "X": 3}
    )
    gained = {key: value for key, value in made["env"].items() if before.get(key) != value}
    assert gained == {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0", "NCCL_P2P_LEVEL": "NVL", "X": "3"}
    assert set(before) - set(made["env"]) == {"DO_NOT_TRACK"}
    assert list(made["env"]) == sorted(made["env"])
    assert "glm_engine_env changes NCCL_P2P_LEVEL." in made["notes"]


def test_a_clock_that_ends_a_start_too_early_is_said() -> None:
    made = plan(engine_env={"VLLM_ENGINE_READY_TIMEOUT_S": 60, "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": 10**6})
    limit = made["timeouts"]["start_seconds"]
    assert [note for note in made["notes"] if "may end a start" in note] == [
        "VLLM_ENGINE_READY_TIMEOUT_S is 60 s in glm_engine_env: the engine may end a start that the plan gives "
        f"{limit:,} s."
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"extra_mounts": ["x"]}, r"glm_extra_mounts: expected a list of mappings .*found \['x'\]"),
        ({"extra_mounts": [{"source": "/srv/a"}, None]}, r"glm_extra_mounts: expected a list of mappings"),
        ({"extra_mounts": None}, r"glm_extra_mounts: expected a list of mappings .*found None"),
        ({"extra_mounts": "/srv/a"}, r"glm_extra_mounts: expected a list of mappings"),
        ({"extra_mounts": {"source": "/srv/a"}}, r"glm_extra_mounts: expected a list of mappings"),
        ({"engine_env": None}, r"glm_engine_env: expected a mapping, found NoneType"),
        ({"engine_env": ["HF_TOKEN=x"]}, r"glm_engine_env: expected a mapping, found list\."),
        ({"engine_args": "--seed 1"}, r"glm_engine_args: expected a mapping, found str\."),
        ({"gpus": ["0", "1"]}, r"glm_gpus: expected indices from 0 to 7, each once, found '0', '1'"),
        ({"gpus": [0, True]}, r"glm_gpus: expected indices from 0 to 7, each once, found 0, True"),
        ({"gpus": [[0], {}]}, r"glm_gpus: expected indices"),
        ({"gpus": None}, r"glm_gpus: expected a list of indices, found None"),
        ({"gpus": 4}, r"glm_gpus: expected a list of indices, found 4"),
        ({"gpus": "0,1"}, r"glm_gpus: expected a list of indices, found '0,1'"),
        ({"accelerator_count": 10**9}, r"1000000000 accelerators\. Next: set glm_accelerator_count"),
        ({"accelerator_count": 10**18, "replicas": 3}, r"accelerators\. Next: set glm_accelerator_count"),
        ({"accelerator_count": 65}, r"65 accelerators\. Next: set glm_accelerator_count"),
        ({"accelerator_count": -1}, r"-1 accelerators\. Next: set glm_accelerator_count"),
    ],
)
def test_values_of_another_shape_are_refused_by_name(more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(**more)


def test_words_that_only_sound_like_a_secret_are_fine() -> None:
    env = {
        "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK": 512, "TOKENIZERS_PARALLELISM": "false",
        "VLLM_KEYS_DIR": "/x", "NCCL_IB_HCA": "mlx5", "URL": "http://proxy.acme.example:3128",
    }  # fmt: skip
    assert set(env) < set(plan(engine_env=env)["env"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HF_HOME", "/x", "HF_HOME is the plan's own; use glm_data_dir"),
        ("VLLM_CACHE_ROOT", "/x", "is the plan's own; use glm_data_dir"),
        ("CUDA_VISIBLE_DEVICES", "0,1", "is the plan's own; use glm_gpus, glm_replicas"),
        ("VLLM_HOST_IP", "10.0.0.1", "use glm_private_address"),
        ("VLLM_API_KEY", "abc", "use keys.yml"),
        ("HF_HUB_OFFLINE", "0", "engines fetch nothing"),
        ("HF_TOKEN", "x", "looks like a secret"),
        ("AWS_SECRET_ACCESS_KEY", "x", "looks like a secret"),
        ("MY_PASSWORD", "x", "looks like a secret"),
        ("aws_secret", "x", "looks like a secret"),
        ("HTTPS_PROXY", "http://me:pw@proxy.example:3128", "looks like a secret"),
        ("ANYTHING", "hf_" + "a" * 30, "looks like a secret"),
        ("VLLM_USE_X", True, "quote it"),
        ("VLLM_USE_X", ["a"], "expected one line of text"),
        ("VLLM_USE_X", "a\nb", "expected one line of text"),
        ("VLLM-USE-X", "1", "no name of an environment variable"),
        ("A=B", "1", "no name of an environment variable"),
        ("", "1", "no name of an environment variable"),
    ],
)
def test_what_the_plan_owns_and_secrets_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError, match="glm_engine_env: ") as error:
        plan(engine_env={name: value})
    assert message in str(error.value)
    if "secret" in message:
        assert str(value) not in str(error.value) or len(str(value)) < 4


def test_the_network_interface_is_the_plans_only_where_it_sets_it() -> None:
    assert plan(engine_env={"NCCL_SOCKET_IFNAME": "ens3"})["env"]["NCCL_SOCKET_IFNAME"] == "ens3"
    with pytest.raises(PlanError, match="use glm_network_interface"):
        plan(engine_env={"NCCL_SOCKET_IFNAME": "ens3"}, interface="ens4")


def test_mounts_of_the_user_stand_beside_those_of_the_plan() -> None:
    made = plan(
        extra_mounts=[
            {"source": "/srv/glm/templates"},
            {"source": "/srv/dumps", "target": "/dumps", "read_only": False},
        ]
    )
    assert made["mounts"][:2] == plan()["mounts"]
    assert made["mounts"][2:] == [
        {"source": "/srv/glm/templates", "target": "/srv/glm/templates", "read_only": True},
        {"source": "/srv/dumps", "target": "/dumps", "read_only": False},
    ]
    locked: Plan = {**made, "model": {**made["model"], "revision": "a" * 40}}
    unit = replica.replica(locked, {})
    words = unit["exec"]["start"]
    assert "type=bind,source=/srv/glm/templates,target=/srv/glm/templates,readonly" in str(words)
    # What the role makes and gives the engine's user.
    assert unit["writable_directories"] == [made["paths"]["cache"]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "source: expected an absolute path"),
        ({"source": "srv"}, "source: expected an absolute path"),
        ({"source": "/srv/../etc/glm"}, "source: expected an absolute path"),
        ({"source": "/srv/a,readonly=false"}, "source: expected an absolute path"),
        ({"source": "/srv", "target": "/a\nb"}, "target: expected an absolute path"),
        ({"source": "/srv", "tarket": "/a"}, "unknown key 'tarket'; did you mean target"),
        ({"source": "/srv", "read_only": "no"}, "read_only: expected true or false"),
        ({"source": "/"}, "which no engine may see"),
        ({"source": "/etc", "target": "/host-etc"}, "source: /etc has or is part of /etc/glm"),
        ({"source": "/etc/glm/keys", "target": "/keys"}, "has or is part of /etc/glm"),
        ({"source": "/var/run/docker.sock"}, "has or is part of /var/run"),
        ({"source": "/run/docker.sock"}, "has or is part of /run"),
        ({"source": "/var/lib/docker/volumes/x"}, "has or is part of /var/lib/docker"),
        ({"source": "/var/lib/glm", "target": "/data", "read_only": False}, "mount it read-only"),
        ({"source": "/srv", "target": "/usr"}, "is the image's own"),
        ({"source": "/srv", "target": "/run/glm"}, "is the image's own"),
        ({"source": "/srv", "target": "/root/.cache"}, "lie one in the other"),
        ({"source": "/srv", "target": "/var/cache/glm/x"}, "lie one in the other"),
    ],
)
def test_mounts_that_would_break_the_container_or_open_the_host_are_refused(entry: Any, message: str) -> None:
    with pytest.raises(PlanError) as error:
        plan(extra_mounts=[entry])
    assert "glm_extra_mounts[0]: " in str(error.value) and message in str(error.value)


def test_two_mounts_may_not_hide_each_other() -> None:
    with pytest.raises(PlanError, match=r"glm_extra_mounts\[1\]: target: /a/b and /a lie one in the other"):
        plan(extra_mounts=[{"source": "/srv/a", "target": "/a"}, {"source": "/srv/b", "target": "/a/b"}])


def test_an_engine_without_a_container_needs_no_mounts() -> None:
    with pytest.raises(PlanError, match="leave glm_extra_mounts empty"):
        plan(extra_mounts=[{"source": "/srv/a"}], runtime="venv")
    assert plan(engine_env={"NCCL_DEBUG": "INFO"}, runtime="venv")["env"]["NCCL_DEBUG"] == "INFO"

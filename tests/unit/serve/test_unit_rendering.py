"""From a plan to the text of a unit: quoting, environment, secrets, docker's argument list."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.host import container, probe
from ansible_collections.glm.fleet.plugins.modules import engine_venv
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import quoting
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica as unit
from tests.unit.serve.plans import REVISION, listening, nodes, plan, replicas, rocm, venv
from tests.unit.serve.render import GROUPS, ROOT, render


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("--tp-size", "--tp-size"),
        ("10.0.0.5:8000:8000", "10.0.0.5:8000:8000"),
        ("", '""'),
        ("two words", '"two words"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("${HOME} %n", '"$${HOME} %%n"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("it's", '"it\'s"'),
        ("back\\slash", '"back\\\\slash"'),
        ("line\nbreak\tand tab", '"line\\nbreak\\tand tab"'),
        ("\x01", '"\\x01"'),
        (";", '";"'),
        ("#comment", '"#comment"'),
        ('{"method":"mtp","n":3}', '"{\\"method\\":\\"mtp\\",\\"n\\":3}"'),
        ("grün", '"grün"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, written: str) -> None:
    assert quoting.systemd_word(word) == written


@pytest.mark.parametrize("word", ["nul\0byte", "not\udcffutf8"])
def test_words_no_unit_can_hold_are_refused(word: str) -> None:
    with pytest.raises(quoting.UnitError):
        quoting.systemd_word(word)


def test_a_command_keeps_its_words_in_order_whatever_its_layout() -> None:
    argv = ["/bin/x", "run", "--rm", "--name", "n", "image", "serve", "-v", "--flag", "--key", "a b", "tail"]
    text = quoting.systemd_exec(argv)
    assert re.sub(r" \\\n\s+", " ", text) == '/bin/x run --rm --name n image serve -v --flag --key "a b" tail'
    assert text.splitlines()[1].strip().startswith("--rm")


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(quoting.UnitError, match="empty"):
        quoting.systemd_exec([])


def test_environment_values_are_written_literally() -> None:
    assert quoting.docker_env({"B": 'a "b" $c #d', "A": 1}) == 'A=1\nB=a "b" $c #d\n'


@pytest.mark.parametrize("env", [{"A B": "x"}, {"A=B": "x"}, {"": "x"}, {"A": "line\nbreak"}, {"A": "x\r"}])
def test_environment_that_docker_would_misread_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(quoting.UnitError):
        quoting.docker_env(env)


def test_the_secret_is_one_environment_line_on_vllm_and_yaml_on_sglang() -> None:
    assert unit.secret_file(plan("vllm"), "glm-k") == "VLLM_API_KEY=glm-k\n"
    assert unit.secret_file(plan("vllm"), "glm-k", "glm-a") == "VLLM_API_KEY=glm-k\n"
    text = unit.secret_file(plan("sglang"), 'glm-"k', 'glm-"a')
    assert yaml.safe_load(text) == {"admin-api-key": 'glm-"a', "api-key": 'glm-"k'}
    last = text.splitlines()[-1]
    assert last.startswith("api-key: ") and json.loads(last.partition(": ")[2]) == 'glm-"k', "the guard reads the last"


def test_a_version_without_an_admin_key_gets_none() -> None:
    made = plan("sglang")
    made["secret"]["admin_option"] = None
    assert unit.secret_file(made, "glm-k", "glm-a") == 'api-key: "glm-k"\n'


def test_an_admin_key_is_required_where_the_engine_takes_one() -> None:
    with pytest.raises(quoting.UnitError, match="printable ASCII"):
        unit.secret_file(plan("sglang"), "glm-k")


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_keys_that_cannot_travel_in_a_header_are_refused(key: str) -> None:
    with pytest.raises(quoting.UnitError, match="printable ASCII"):
        unit.secret_file(plan(), key)
    with pytest.raises(quoting.UnitError, match="printable ASCII"):
        unit.secret_file(plan("sglang"), "glm-k", key)


def option(argv: list[str], name: str) -> list[str]:
    return [after for word, after in zip(argv, argv[1:]) if word == name]


def test_the_container_runs_on_a_bridge_bound_to_one_address_with_gpus_and_mounts() -> None:
    argv = unit.replica(plan())["exec"]["start"]
    assert argv[:2] == ["/usr/bin/docker", "run"]
    assert option(argv, "--network") == ["bridge"]
    assert option(argv, "--publish") == ["127.0.0.1:18000:8000"]
    assert option(argv, "--device") == ["nvidia.com/gpu=all"]
    assert option(argv, "--env-file") == ["/etc/glm/serve-0.env"]
    assert option(argv, "--mount")[0].endswith("target=/root/.cache/huggingface,readonly")
    assert {"--rm", "--init", "--pull=never"} <= set(argv)
    image = argv.index(plan()["image"]["reference"])
    assert argv[image + 1 :][-len(plan()["command"]) - 2 :] == ["vllm", "serve", *plan()["command"]]


def test_the_key_of_vllm_is_in_no_environment_that_docker_shows() -> None:
    argv = unit.replica(plan())["exec"]["start"]
    mount = "type=bind,source=/etc/glm/serve-0.secret.env,target=/run/glm/engine.env,readonly"
    assert mount in option(argv, "--mount") and option(argv, "--entrypoint") == ["/bin/sh"]
    assert "VLLM_API_KEY" not in " ".join(argv) and "VLLM_API_KEY" not in unit.env_file(plan())
    unread = plan()
    unread["secret"]["container_path"] = None
    with pytest.raises(quoting.UnitError, match="where its container reads the API key"):
        unit.replica(unread)


def test_the_shell_reads_any_key_and_gives_every_word_on(tmp_path: Path) -> None:
    key = "".join(map(chr, range(0x21, 0x7F)))
    secret = tmp_path / "engine.env"
    secret.write_text("# Managed by\n" + unit.secret_file(plan(), key), encoding="utf-8")
    argv = unit.replica(plan(command=["a b", "$HOME", "", "'"]))["exec"]["start"]
    words = argv[argv.index(plan()["image"]["reference"]) + 1 :]
    script = words[1].replace("/run/glm/engine.env", str(secret))
    show = "import json, os, sys; print(json.dumps([os.environ['VLLM_API_KEY'], sys.argv[1:]]))"
    assert words[2:5] == ["glm", "vllm", "serve"]
    command = ["/bin/sh", words[0], script, words[2], sys.executable, "-c", show, *words[5:]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [key, ["a b", "$HOME", "", "'"]]


def test_the_container_may_do_what_the_plan_says_and_no_more() -> None:
    argv = unit.replica(plan())["exec"]["start"]
    assert option(argv, "--user") == ["0"] and option(argv, "--security-opt") == ["no-new-privileges"]
    assert option(argv, "--cap-drop") == ["ALL"] and "--cap-add" not in argv and "--privileged" not in argv
    assert option(argv, "--pids-limit") == ["32768"] and "--read-only" in argv
    assert option(argv, "--tmpfs") == ["/tmp:rw,exec,nosuid,nodev", "/root:rw,exec,nosuid,nodev"]
    assert option(argv, "--ipc") == ["private"] and option(argv, "--shm-size") == ["64g"]
    with pytest.raises(quoting.UnitError, match="what its container may do"):
        unit.replica(plan(confinement=None))


@pytest.mark.parametrize(
    "made",
    [plan(), plan("sglang"), rocm(), plan(runtime={**plan()["runtime"], "network": "host"})],
    ids=["vllm", "sglang", "rocm", "host network"],
)
def test_an_image_is_probed_under_the_limits_of_its_unit(made: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=int(GROUPS[name][1])))
    start = unit.replica(made, GROUPS)["exec"]["start"]
    tried = probe.unit_arguments(made)
    limits = container.confined(made["confinement"])
    assert " ".join(limits) in " ".join(start) and " ".join(limits) in " ".join(tried)
    for name in ("--device", "--group-add", "--network", "--ipc", "--user"):
        assert option(tried, name) == option(start, name)
    assert option(tried, "--mount") == [mount for mount in option(start, "--mount") if "cache/engine" in mount]
    assert option(tried, "--env") == unit.env_file(made).splitlines()


def test_engines_are_on_loopback_wherever_the_door_listens() -> None:
    six = unit.replica(plan(listen=listening("fd00::5", 8000)))
    assert option(six["exec"]["start"], "--publish") == ["127.0.0.1:18000:8000"]
    wild = unit.replica(plan(listen=listening("0.0.0.0", 8000)))
    with pytest.raises(quoting.UnitError, match="not an IP address"):
        unit.probe_address("lan")
    assert [unit.probe_address(one) for one in ("fd00::5", "0.0.0.0", "::")] == ["fd00::5", "127.0.0.1", "::1"]
    for made in (six, wild):
        assert option(made["exec"]["start_pre"], "--address") == ["127.0.0.1"]
        assert option(made["exec"]["start_post"], "--address") == ["127.0.0.1"]
        assert option(made["exec"]["start_post"], "--port") == ["18000"]


def test_the_key_is_in_no_argument_list_and_not_in_the_unit() -> None:
    for engine in ("vllm", "sglang"):
        assert "glm-test-key" not in render("glm-serve.service", plan(engine))
        assert "glm-test-key" not in render("glm-serve.env", plan(engine))
        assert "glm-test-key" in render("glm-serve.secret", plan(engine))
        assert "glm-test-admin" not in render("glm-serve.service", plan(engine))


def test_a_command_that_would_not_read_the_key_file_is_refused() -> None:
    careless = plan("sglang", command=["python3", "-m", "sglang.launch_server"])
    with pytest.raises(quoting.UnitError, match="no API key would be required"):
        unit.replica(careless)


def test_137_is_a_clean_stop_for_sglang_and_still_a_crash_when_unasked() -> None:
    text = render("glm-serve.service", plan("sglang"))
    assert "\nSuccessExitStatus=137 SIGKILL\n" in text and "\nRestartForceExitStatus=137 SIGKILL\n" in text
    assert "SuccessExitStatus" not in render("glm-serve.service", plan("vllm"))


def test_times_come_from_the_plan_and_allow_two_whole_starts() -> None:
    text = render("glm-serve.service", plan())
    assert "\nTimeoutStartSec=2400\n" in text and "\nStartLimitBurst=2\n" in text
    interval = int(re.search(r"^StartLimitIntervalSec=(\d+)$", text, re.M).group(1))
    assert interval > 2 * (2400 + 60)
    # The guard must give up before systemd does, or the journal has no reason.
    assert option(unit.replica(plan())["exec"]["start_post"], "--wait") == ["2385"]


def test_weights_are_asserted_once_their_commit_is_known() -> None:
    snapshot = f"/var/lib/glm/huggingface/hub/models--zai-org--GLM-5.1-FP8/snapshots/{REVISION}"
    assert f"\nAssertPathExists={snapshot}\n" in render("glm-serve.service", plan())
    unknown = plan()
    unknown["model"]["revision"] = None
    assert "AssertPathExists" not in render("glm-serve.service", unknown)


def test_what_is_not_pinned_is_named() -> None:
    assert unit.unlocked(plan()) == []
    loose = plan()
    loose["image"]["digest"] = None
    loose["model"]["revision"] = None
    assert unit.unlocked(loose) == [
        "the digest of image vllm/vllm-openai:v0.32.0",
        "the commit of model zai-org/GLM-5.1-FP8",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mounts": [{"source": "/a,b", "target": "/x", "read_only": True}]}, "cannot be mounted"),
        ({"mounts": [{"source": "relative", "target": "/x", "read_only": True}]}, "cannot be mounted"),
        ({"secret": {"kind": "vault"}}, "vault"),
    ],
)
def test_values_no_unit_can_carry_are_refused_by_name(change: dict, words: str) -> None:
    with pytest.raises(quoting.UnitError, match=words):
        made = plan(**change)
        unit.replica(made)
        unit.secret_file(made, "glm-k")


def test_a_plan_that_lacks_something_says_what() -> None:
    lacking = plan()
    del lacking["timeouts"]
    with pytest.raises(quoting.UnitError, match="'timeouts'"):
        unit.replica(lacking)


def test_the_environment_file_has_a_header_that_docker_skips() -> None:
    lines = render("glm-serve.env", plan()).splitlines()
    assert lines[-2:] == ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1"]
    assert all(line.startswith("#") for line in lines[:-2])


def test_each_replica_has_its_own_unit_files_port_and_gpus() -> None:
    first, second = (unit.replica(one) for one in replicas(2))
    assert (first["unit"], second["unit"]) == ("glm-serve-0.service", "glm-serve-1.service")
    of_the_host = {unit.guard.PROGRAM, "/etc/glm/engine.key", "/etc/glm/admin.key"}
    assert set(first["files"].values()) & set(second["files"].values()) == of_the_host
    assert second["serving_unit"]["gpus"] == [4, 5, 6, 7] and second["serving_unit"]["port"] == 18001
    argv = second["exec"]["start"]
    assert option(argv, "--device") == [f"nvidia.com/gpu={index}" for index in (4, 5, 6, 7)]
    assert option(argv, "--publish") == ["127.0.0.1:18001:8000"] and option(argv, "--name") == ["glm-serve-1"]
    assert option(second["exec"]["start_pre"], "--device") == option(argv, "--device")
    assert "\n[X-GlmFleet]\n" in render("glm-serve.service", replicas(2)[1])


def test_rocm_gets_its_device_files_and_groups_and_no_more_rights_than_it_needs() -> None:
    made = unit.replica(rocm(), GROUPS)
    argv = made["exec"]["start"]
    assert option(argv, "--device") == ["/dev/kfd", "/dev/dri"]
    assert option(argv, "--group-add") == ["44", "993"], "the host's numbers: names mean others inside the image"
    assert option(argv, "--security-opt") == ["no-new-privileges"], "Docker's own filter of system calls"
    assert (option(argv, "--cap-drop"), option(argv, "--cap-add")) == (["ALL"], ["SYS_NICE"])
    assert option(argv, "--network") == ["bridge"]
    assert not {"--privileged", "SYS_ADMIN", "SYS_PTRACE", "/dev/mem", "amd.com/gpu=all"} & set(argv)
    guard = made["exec"]["start_pre"]
    assert option(guard, "--node") == ["/dev/kfd", "/dev/dri"] and option(guard, "--gpus") == ["8"]
    assert "--device" not in guard
    text = render("glm-serve.service", rocm())
    assert "nvidia" not in text


def test_a_group_that_the_host_lacks_is_named() -> None:
    with pytest.raises(quoting.UnitError, match="no group render"):
        unit.replica(rocm(), {"video": ["x", "44", ""], "render": None})


def test_several_hosts_share_the_host_network() -> None:
    several = plan(runtime={**plan()["runtime"], "network": "host"})
    argv = unit.replica(several)["exec"]["start"]
    assert option(argv, "--network") == ["host"] and "--publish" not in argv


def test_bare_metal_runs_the_engine_itself_as_a_user_of_its_own() -> None:
    made = unit.replica(venv())
    assert made["runtime"] == "venv" and made["exec"]["start"] == venv()["command"]
    assert "stop" not in made["exec"], "the engine is the unit's own process, which systemd stops"
    text = render("glm-serve.service", venv())
    lines = text.splitlines()
    assert {"User=glm", "DevicePolicy=closed", "DeviceAllow=char-nvidia* rw", "LimitMEMLOCK=infinity"} <= set(lines)
    assert "docker" not in text
    assert "ReadWritePaths=/var/lib/glm/cache/engine" in lines, "weights and engine stay read-only"
    assert "EnvironmentFile=/etc/glm/serve-0.secret.env" in lines and "glm-test-key" not in text
    assert "Environment=HOME=/var/lib/glm/cache/engine" in text
    guard = made["exec"]["start_pre"]
    assert option(guard, "--node") == ["/dev/nvidiactl", "/dev/nvidia-uvm"] and "--device" not in guard


def test_a_unit_names_the_documentation_of_its_engine() -> None:
    assert "\nDocumentation=https://docs.vllm.ai\n" in render("glm-serve.service", plan("vllm"))
    assert "\nDocumentation=https://docs.sglang.ai\n" in render("glm-serve.service", plan("sglang"))
    gone = {**plan(), "engine": {"name": "gone", "version": "1.0"}}
    assert "Documentation=" not in render("glm-serve.service", gone)


def test_bare_metal_on_rocm_gets_the_groups_and_the_classes_of_its_devices() -> None:
    made = venv(device_nodes=["/dev/kfd", "/dev/dri"], device_groups=["video", "render"], devices=[])
    made["accelerator"]["vendor"] = "amd"
    lines = render("glm-serve.service", made).splitlines()
    assert {"SupplementaryGroups=video render", "DeviceAllow=char-kfd rw", "DeviceAllow=char-drm rw"} <= set(lines)
    with pytest.raises(quoting.UnitError, match="no group video and no group render"):
        unit.replica(made, {})


def test_a_key_that_an_engine_reads_from_a_file_is_a_credential_on_bare_metal() -> None:
    text = render("glm-serve.service", venv("sglang"))
    assert "\nLoadCredential=engine.yaml:/etc/glm/serve-0.secret.yaml\n" in text
    assert "--config /run/credentials/glm-serve-0.service/engine.yaml" in re.sub(r" \\\n\s+", " ", text)
    careless = venv("sglang")
    careless["command"] = careless["command"][:3]
    with pytest.raises(quoting.UnitError, match="no API key would be required"):
        unit.replica(careless)


def test_on_bare_metal_only_the_model_has_to_be_pinned_by_the_plan() -> None:
    assert unit.unlocked(venv()) == []


# As systemd's own parser reads them; tests/integration/test_serve_on_host.py asks systemd itself.
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("1", "1"),
        ("", ""),
        ("a b", '"a b"'),
        ("100%", "100%"),
        ('{"a": "$b"}', '"{\\"a\\": \\"\\$b\\"}"'),
        ("back\\slash `x`", '"back\\\\slash \\`x\\`"'),
        ("'", '"\'"'),
        (" # ", '" # "'),
    ],
)
def test_environment_files_of_systemd_are_quoted(value: str, written: str) -> None:
    assert unit.env_file(venv(env={"A": value})) == f"A={written}\n"


def test_a_value_with_a_line_break_is_refused_by_either_runtime() -> None:
    for made in (plan(env={"A": "x\ny"}), venv(env={"A": "x\ny"})):
        with pytest.raises(quoting.UnitError, match="line break"):
            unit.env_file(made)


def test_roles_and_units_agree_on_the_user_and_on_what_changes_restart_a_replica() -> None:
    variables = yaml.safe_load((ROOT / "roles/engine_venv/vars/main.yml").read_text(encoding="utf-8"))
    assert variables["__engine_venv_user"] == unit.ENGINE_USER
    assert engine_venv.MARKER == unit.VENV_MARKER
    bare, contained = (unit.replica(made)["serving_unit"]["files"] for made in (venv(), plan()))
    assert bare[-1] == "/opt/glm/engines/vllm-0.32.0/.glm.json" and len(contained) == 3
    assert option(unit.replica(venv())["exec"]["start_pre"], "--stamp") == bare


@pytest.mark.parametrize("made", [plan(), venv()], ids=["container", "venv"])
def test_ranks_of_a_replica_start_together_and_only_the_first_has_an_endpoint(made: dict) -> None:
    alone = unit.replica(made)["exec"]["start"]
    for rank in (0, 1):
        one = unit.replica(nodes(made, rank))["exec"]
        guard = one["start"][: one["start"].index("--")]
        assert guard[:4] == ["/usr/bin/python3", "-I", unit.guard.PROGRAM, "node"]
        assert option(guard, "--rank") == [str(rank)] and option(guard, "--count") == ["2"]
        assert option(guard, "--head") == ["10.0.0.5"] and option(guard, "--port") == ["19999"]
        assert "--find-interface" in guard
        assert option(guard, "--own") == [("10.0.0.5", "10.0.0.6")[rank]]
        assert option(guard, "--slice") == ["glm-serve-0.slice"] and option(guard, "--peer") == ["10.0.0.5", "10.0.0.6"]
        assert option(guard, "--container") == (["glm-serve-0"] if made["runtime"]["kind"] == "container" else [])
        assert one["start"][-len(made["command"]) :] == alone[-len(made["command"]) :]
        assert bool(one["start_post"]) is (rank == 0)
    text = render("glm-serve.service", nodes(made, 1))
    assert "ExecStartPost" not in text and "answered a chat" not in text


def test_an_interface_that_is_given_is_not_looked_for() -> None:
    found, given = (unit.replica(nodes(plan(), 0, name))["exec"]["start"] for name in (None, "ens3"))
    assert option(found, "--env") == ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"]
    assert "--env" not in given and "--find-interface" not in given


def test_several_hosts_without_the_first_one_s_address_are_refused() -> None:
    lost = nodes(plan(), 0)
    lost["node"]["head_address"] = None
    with pytest.raises(quoting.UnitError, match="first one's address"):
        unit.replica(lost)


@pytest.mark.parametrize("made", [plan(), venv()], ids=["container", "venv"])
def test_a_replica_and_its_container_are_in_one_slice_that_talks_to_the_host_only(made: dict) -> None:
    rendered = unit.replica(made)
    assert rendered["slice"] == "glm-serve-0.slice"
    assert "\nSlice=glm-serve-0.slice\n" in render("glm-serve.service", made)
    before = rendered["exec"]["start_pre"]
    assert option(before, "--slice") == ["glm-serve-0.slice"] and "--peer" not in before
    if made["runtime"]["kind"] == "container":
        assert option(rendered["exec"]["start"], "--cgroup-parent") == ["glm-serve-0.slice"]
        after = rendered["exec"]["start_post"]
        assert option(after, "--slice") == ["glm-serve-0.slice"] and option(after, "--container") == ["glm-serve-0"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_replica_over_several_hosts_lets_in_those_and_needs_all_their_addresses(rank: int) -> None:
    made = nodes(venv(), rank)
    assert option(unit.replica(made)["exec"]["start_pre"], "--peer") == ["10.0.0.5", "10.0.0.6"]
    made["node"]["addresses"] = ["10.0.0.5"]
    with pytest.raises(quoting.UnitError, match="all their addresses"):
        unit.replica(made)


@pytest.mark.parametrize("drains", [True, False])
def test_a_stop_is_said_at_the_door_before_the_engine_hears_of_it(drains: bool) -> None:
    made = plan(stop={"drains": drains, "success_exit_status": []})
    lines = [
        line
        for line in re.sub(r"\s*\\\n\s*", " ", render("glm-serve.service", made)).splitlines()
        if line.startswith(("ExecStop=", "ExecStartPost="))
    ]
    program = "-+/usr/bin/python3 -I -B /usr/local/lib/glm/door_drain"
    # What failed before is forgotten with the first answer: systemd would count it against what comes later.
    assert re.fullmatch(r"ExecStartPost=-\+/usr/bin/python3 -I \S+ answered --unit glm-serve-0.service", lines[1])
    lines.pop(1)
    assert lines[1] == f"ExecStartPost={program} admit --replica 0 --of-unit"
    wait = "" if drains else " --wait 600"
    assert re.fullmatch(rf"ExecStop={re.escape(program)} drain --replica 0 --of-unit --seconds \d+{wait}", lines[2])
    assert lines[3].startswith("ExecStop=/usr/bin/docker stop -t ")


def test_a_host_without_an_endpoint_has_no_door_to_say_it_at() -> None:
    made = plan()
    made["node"] = {
        **made["node"],
        "count": 2,
        "rank": 1,
        "head_address": "10.0.0.5",
        "addresses": ["10.0.0.5", "10.0.0.6"],
    }
    assert "door_drain" not in render("glm-serve.service", made)

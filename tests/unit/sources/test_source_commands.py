"""The comparison itself: what it reads out of a command line, and that it notices what is not so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, build
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from tools import source_claims, source_data
from tools import source_commands as sources_of

ENTRIES = {entry.id: entry for source in source_data.sources() for entry in source.entries}
SGLANG = flags.load("sglang", "0.5.10")
VLLM = flags.load("vllm", "0.32.0")


def entry(command: str, **more: Any) -> source_data.Entry:
    return source_data.Entry(id="x", title="x", kind="serve", command=command, **more)


def test_a_docker_command_is_taken_apart() -> None:
    line = sources_of.source_line(
        entry(
            "docker run --rm --gpus all -p 80:8000 --ipc=host -e A=b=c -v ~/x:/y --device=/dev/kfd "
            "image:tag python -m sglang.launch_server --tp 8"
        )
    )
    assert line.items == {
        "docker --rm": "yes", "gpus": "--gpus all", "port": "0.0.0.0:80:8000", "docker --ipc": "host", "env A": "b=c",
        "mount /y": "~/x (read-write)", "docker --device /dev/kfd": "yes", "image": "image:tag",
        "program": "python -m sglang.launch_server",
    }  # fmt: skip
    assert line.arguments == ["--tp", "8"]


def test_a_script_in_a_container_is_taken_apart() -> None:
    line = sources_of.source_line(
        entry("""docker run --entrypoint /bin/bash image -c "pip install 'a>1' && vllm serve m --port 1" """)
    )
    assert line.items["at start"] == "pip install 'a>1'"
    assert line.items["program"] == "vllm serve"
    assert line.arguments == ["m", "--port", "1"]


def test_an_image_of_vllm_starts_it_by_itself() -> None:
    line = sources_of.source_line(entry("docker run image --model m"))
    assert (line.items["program"], line.arguments) == ("vllm serve", ["--model", "m"])


def test_variables_in_front_and_a_program_by_its_path() -> None:
    line = sources_of.source_line(entry("A=1 /opt/x/bin/vllm serve m"))
    assert line.items == {"env A": "1", "program": "/opt/x/bin/vllm serve"}


def test_an_unknown_docker_option_is_an_error() -> None:
    with pytest.raises(source_data.SourceError, match="--cpus"):
        sources_of.source_line(entry("docker run --cpus 1 image vllm serve m"))


def test_engine_arguments_have_one_name_each() -> None:
    items, spelled, unknown = sources_of.engine_items(SGLANG, ["--tp", "8", "--ep=8", "--enable-moe-ep", "--port", "1"])
    assert items["--tensor-parallel-size"] == "8" and items["--expert-parallel-size"] == "8"
    assert spelled["--tensor-parallel-size"] == "--tp"
    assert unknown == ["--enable-moe-ep"]


def test_negative_and_dotted_arguments() -> None:
    words = ["m", "--no-enable-prefix-caching", "--speculative-config.method", "mtp", "--trust-remote-code"]
    items, _spelled, unknown = sources_of.engine_items(VLLM, words)
    assert items == {
        "model": "m", "--enable-prefix-caching": "no", "--speculative-config.method": "mtp",
        "--trust-remote-code": "yes",
    }  # fmt: skip
    assert unknown == []


def test_what_is_the_same_is_no_difference() -> None:
    known = ENTRIES["003-docker"]
    made = sources_of.plan(known.intent)
    assert "--gpu-memory-utilization" not in {item.what for item in sources_of.differences(known, made)}  # 0.90, 0.9
    other = dataclasses.replace(known, command=known.command.replace("0.90", "0.91"))
    assert "--gpu-memory-utilization" in {item.what for item in sources_of.differences(other, made)}


@pytest.mark.parametrize(
    ("what", "source", "ours", "reason", "doubt"),
    [
        ("--trust-remote-code", "yes", None, {"reason": "missing-flag"}, "have --trust-remote-code"),
        ("--trust-remote-code", "yes", None, {"reason": "deprecated"}, "is in use"),
        ("--host", None, "0.0.0.0", {"reason": "unsafe"}, "nothing unsafe"),
        ("--host", None, "0.0.0.0", {"reason": "recipe"}, "no layer or recipe"),
        ("--host", None, "0.0.0.0", {"reason": "renamed"}, "not asked for"),
        ("--host", None, "0.0.0.0", {"reason": "default-already"}, "or we render it"),
        ("--max-num-seqs", None, "64", {"reason": "managed-by-plan"}, "the recipe sets it"),
        ("--max-num-seqs", "9", "64", {"reason": "does-not-fit"}, "no refusal proves it"),
        ("--max-num-seqs", "9", "64", {"reason": "does-not-fit", "proof": {"engine_args": {"max-num-seqs": 9}}},
         "no refusal proves it"),
        ("image", "a", "b", {"reason": "wrong-claim", "claim": "000-context"}, "no wrong claim"),
    ],
)  # fmt: skip
def test_a_reason_that_is_not_so_is_noticed(
    what: str, source: str | None, ours: str | None, reason: dict[str, Any], doubt: str
) -> None:
    known = ENTRIES["000-vllm"]
    found = source_data.Difference(what, source, ours)
    stated = source_data.Reason([what], why="", **reason)
    assert doubt in sources_of.doubt(known, sources_of.plan(known.intent), found, stated, ["000-sglang-tag"])


def test_as_printed() -> None:
    sglang, vllm = ENTRIES["002-sglang"], ENTRIES["000-vllm"]
    assert sources_of.as_printed(sglang, sources_of.plan(sglang.intent)) == (
        "sglang 0.5.10 refuses it: it has no --enable-moe-ep"
    )
    assert sources_of.as_printed(vllm, sources_of.plan(vllm.intent)) == "vllm 0.19.0 has every option in it"


@pytest.mark.parametrize(
    ("claimed", "computed", "verdict"),
    [(744, 743.9, "right"), (800, 756.2, "wrong"), (5, [1, 2, 4], "wrong"), (4, [1, 2, 4], "right"),
     ("refused", "planned", "wrong"), ("0.16.0", "0.16.0", "right")],
)  # fmt: skip
def test_verdicts(claimed: Any, computed: Any, verdict: str) -> None:
    assert source_claims.verdict(claimed, computed) == verdict


def test_only_arithmetic_is_calculated() -> None:
    assert source_claims.calculate("8 * 2.60 - 4 / 2") == pytest.approx(18.8)
    with pytest.raises(source_data.SourceError):
        source_claims.calculate("__import__('os')")


def test_a_mistyped_key_is_an_error() -> None:
    with pytest.raises(CatalogError, match="comand"):
        build(source_data.Entry, {"id": "x", "title": "x", "kind": "serve", "comand": "vllm serve m"}, "000.yml")
    with pytest.raises(CatalogError, match="unsave"):
        build(source_data.Reason, {"what": ["image"], "reason": "unsave", "why": ""}, "000.yml")

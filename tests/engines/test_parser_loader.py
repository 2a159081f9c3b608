"""The engines' own parsers, loaded without the engines, say what the engines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.engines import parser_loader, wheels

MODEL = "zai-org/GLM-5.1-FP8"
VLLM = [MODEL, "--tensor-parallel-size", "8", "--tool-call-parser", "glm47", "--enable-auto-tool-choice"]
SGLANG = ["--model-path", MODEL, "--tp-size", "8", "--tool-call-parser", "glm47"]


def test_options_reach_the_namespace(engine_parse):
    mtp = ["--speculative-config.method", "mtp", "--speculative-config.num_speculative_tokens", "3"]
    found = engine_parse("vllm", "0.32.0", [*VLLM, *mtp])
    assert found.ok, found.message
    assert found.namespace["model_tag"] == "zai-org/GLM-5.1-FP8"
    assert found.namespace["tensor_parallel_size"] == 8
    assert found.namespace["speculative_config"] == {"method": "mtp", "num_speculative_tokens": 3}

    found = engine_parse("sglang", "0.5.10", ["python3", "-m", "sglang.launch_server", *SGLANG])
    assert found.ok, found.message
    assert (found.namespace["model_path"], found.namespace["tensor_parallel_size"]) == ("zai-org/GLM-5.1-FP8", 8)


@pytest.mark.parametrize(
    ("engine", "version", "argv", "message"),
    [
        ("vllm", "0.19.1", [*VLLM, "--disable-log-requests"], "unrecognized arguments: --disable-log-requests"),
        ("vllm", "0.32.0", [*VLLM, "--enable-moe-ep"], "unrecognized arguments: --enable-moe-ep"),
        ("vllm", "0.32.0", [*VLLM, "--chat-template-content-format", "xml"], "invalid choice: 'xml'"),
        ("vllm", "0.32.0", ["m", "--enable-auto-tool-choice"], "requires --tool-call-parser"),
        ("vllm", "0.32.0", [*VLLM, "--max-model-len", "many"], "--max-model-len"),
        ("sglang", "0.5.10", [*SGLANG, "--enable-moe-ep"], "unrecognized arguments: --enable-moe-ep"),
        ("sglang", "0.5.10", [*SGLANG, "--reasoning-parser", "glm47"], "invalid choice: 'glm47'"),
        ("sglang", "0.5.23", [*SGLANG, "--nsa-decode-backend", "trtllm"], "unrecognized arguments: --nsa-decode"),
        ("sglang", "0.5.23", [*SGLANG, "--cuda-graph-max-bs", "32"], "ambiguous option"),
    ],
)
def test_refusals_are_the_engines_own(engine_parse, engine, version, argv, message):
    found = engine_parse(engine, version, argv)
    assert not found.ok
    assert found.exit_code != 0
    assert message in found.message


def test_a_flag_may_come_and_go_between_versions(engine_parse):
    accepted = {
        version: engine_parse("vllm", version, [*VLLM, "--disable-log-requests"]).ok
        for version in ("0.19.1", "0.32.0", "0.33.0")
    }
    assert accepted == {"0.19.1": False, "0.32.0": False, "0.33.0": True}


def test_sglang_config_file_is_merged(engine_parse, tmp_path):
    config = tmp_path / "engine.yaml"
    config.write_text("api-key: sk-from-file\n")
    found = engine_parse("sglang", "0.5.10", [*SGLANG, "--config", str(config)])
    assert found.ok, found.message
    assert found.namespace["api_key"] == "sk-from-file"


@pytest.mark.parametrize(
    ("engine", "version", "options"), [("vllm", "0.19.0", 230), ("vllm", "0.32.0", 316), ("sglang", "0.5.10", 354)]
)
def test_every_option_is_there(parser_python, engine, version, options):
    """Counts of the parser built with real torch (231, 317 and 355) less ``--help``."""
    source = wheels.fetch_source(engine, version)
    assert len(parser_loader.describe(engine, version, source, parser_python)) == options


def test_parser_names_that_argparse_does_not_check(parser_python, engine_parse):
    old, new = (
        parser_loader.parser_names("vllm", version, wheels.fetch_source("vllm", version), parser_python)
        for version in ("0.19.1", "0.32.0")
    )
    assert "glm47" in old["tool"] and "glm47" not in old["reasoning"]
    assert "glm47" in new["tool"] and {"glm45", "glm47"} <= set(new["reasoning"])
    assert engine_parse("vllm", "0.19.1", [*VLLM, "--reasoning-parser", "glm47"]).ok


def test_runs_as_a_file_on_its_own(parser_python, tmp_path):
    script = tmp_path / "loader.py"
    script.write_text(Path(parser_loader.__file__).read_text())
    source = wheels.fetch_source("sglang", "0.5.10")
    command = [str(parser_python), str(script), "--engine", "sglang", "--version", "0.5.10"]
    command += ["--source", str(source), "--"]
    good = subprocess.run([*command, *SGLANG], capture_output=True, text=True, check=False)
    bad = subprocess.run([*command, *SGLANG, "--bogus"], capture_output=True, text=True, check=False)
    assert (good.returncode, bad.returncode) == (0, 2)
    assert "sglang 0.5.10 accepts" in good.stdout
    assert "unrecognized arguments: --bogus" in bad.stderr


def test_missing_source_and_unknown_version_are_named(tmp_path):
    with pytest.raises(parser_loader.LoaderError, match="holds no unpacked vllm source"):
        parser_loader.parse("vllm", "0.32.0", tmp_path, VLLM, Path(sys.executable))
    with pytest.raises(parser_loader.LoaderError, match=r"no wheel of vllm 0\.0\.0 could be downloaded"):
        wheels.fetch_source("vllm", "0.0.0", tmp_path)

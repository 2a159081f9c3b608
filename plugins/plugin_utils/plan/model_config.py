# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that the catalogue does not know, from the ``config.json`` of its checkpoint.

Sizes follow from the file. What it does not say (parsers, thinking, sampling, oldest engine versions) is taken from the
catalogue's model of the same architecture, and the model's notes say so.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Optional, Union

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, Checkpoint, Model, Mtp
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.quantised_parts import plain_parts

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "n_routed_experts",
    "n_shared_experts",
    "num_attention_heads",
    "vocab_size",
)
_LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_INDEXER = ("index_n_heads", "index_head_dim")
_GROUPED_QUERY = ("num_key_value_heads", "head_dim")
_GROUP_SIZE = 128
_BLOCK = [128, 128]


class ModelConfigError(CatalogError):
    """A config.json cannot be used; the text names the file, the key, what was expected and what was found."""


@dataclass(frozen=True)
class _Architecture:
    """What one ``model_type`` means: its class, its own keys, and the catalogue's model to take the rest from."""

    name: str
    keys: tuple[str, ...]
    like: str
    # Whether checkpoints hold the embedding a second time for the MTP layer, which config.json does not say.
    mtp_embeddings: bool


_ARCHITECTURES = {
    "glm_moe_dsa": _Architecture("GlmMoeDsaForCausalLM", (*_LATENT, *_INDEXER), "GLM-5.1", False),
    "glm4_moe": _Architecture("Glm4MoeForCausalLM", _GROUPED_QUERY, "GLM-4.7", True),
    "glm4_moe_lite": _Architecture("Glm4MoeLiteForCausalLM", _LATENT, "GLM-4.7-Flash", True),
}
# The model that shares indexers between layers needs newer engines.
_LIKE_WITH_SHARED_INDEXERS = "GLM-5.2"


class _File:
    """A config.json and how to complain about it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "config.json" if path.is_dir() else path
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ModelConfigError(f"{self.path}: cannot be read: {exc.strerror}") from exc
        except ValueError as exc:
            raise ModelConfigError(f"{self.path}: is not JSON: {exc}") from exc
        if not isinstance(data, dict):
            raise ModelConfigError(f"{self.path}: expected an object, found {type(data).__name__}")
        self.data: dict[str, Any] = data

    def refuse(self, key: str, expected: str, found: Any) -> NoReturn:
        """Raise ModelConfigError for one key."""
        shown = "nothing" if found is None else json.dumps(found)
        shown = shown if len(shown) < 80 else f"{shown[:77]}..."
        raise ModelConfigError(f"{self.path}: {key}: expected {expected}, found {shown}")

    def number(self, key: str, least: int = 1) -> int:
        """A whole number that must be there."""
        value = self.data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(key, f"a whole number of at least {least}", value)
        return value

    def switch(self, key: str) -> bool:
        """A boolean; false when it is absent."""
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "true or false", value)
        return value


def from_config(path: Union[str, Path], name: Optional[str] = None, known: Optional[Catalog] = None) -> Model:
    """The model that a ``config.json`` (or the folder it lies in) describes, as the catalogue would have it.

    ``name`` defaults to the folder's name. The only precision is the checkpoint's own, and has no repository. ``known``
    is the catalogue to take assumptions from. Raises ModelConfigError.
    """
    file = _File(Path(path))
    model_type = file.data.get("model_type")
    architecture = _ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        file.refuse("model_type", f"one of {', '.join(_ARCHITECTURES)}", model_type)
    if file.data.get("architectures") != [architecture.name]:
        file.refuse("architectures", json.dumps([architecture.name]), file.data.get("architectures"))
    config = _config(file, architecture)
    shared = config.indexer_layers is not None and config.indexer_layers < config.num_hidden_layers
    catalogue = known or catalog.load()
    like = catalogue.models[_LIKE_WITH_SHARED_INDEXERS if shared else architecture.like]
    weights, block, remarks = _weights(file)
    quantised = file.data.get("quantization_config")
    if quantised is not None:
        config = dataclasses.replace(config, plain=plain_parts(config, quantised))
        remarks += [f"quantization_config leaves in BF16: {', '.join(config.plain)}."] if config.plain else []
    title = name or file.path.resolve().parent.name or architecture.name
    mtp = config.num_nextn_predict_layers > 0 and weights != "int4"
    return Model(
        name=title,
        architecture=architecture.name,
        model_type=str(model_type),
        license="unknown; see the model's card",
        context_length=file.number("max_position_embeddings"),
        min_transformers=like.min_transformers,
        needs=list(like.needs),
        config=config,
        precisions={weights: Checkpoint(None, weights, _served_name(title, weights), mtp, block=block)},
        engines=dict(like.engines),
        parsers=like.parsers,
        mtp=Mtp(config.num_nextn_predict_layers, like.mtp.tokens, like.mtp.steps),
        thinking=like.thinking,
        sampling={"default": like.sampling["default"]},
        sources=[str(file.path)],
        notes=[
            f"Read from config.json. Parsers, thinking modes, sampling, drafted tokens and oldest engine versions are "
            f"assumed to be those of {like.name}.",
            *remarks,
        ],
    )


def _config(file: _File, architecture: _Architecture) -> memory.Config:
    if file.switch("tie_word_embeddings"):
        file.refuse("tie_word_embeddings", "false (sizes are computed for a head of its own)", True)
    sizes = {key: file.number(key) for key in (*_SIZES, *architecture.keys)}
    grouped = "num_key_value_heads" in sizes
    drafted = file.number("num_nextn_predict_layers", 0) if "num_nextn_predict_layers" in file.data else 0
    return memory.Config(
        **sizes,  # type: ignore[arg-type]
        first_k_dense_replace=_dense_layers(file, sizes["num_hidden_layers"]),
        num_nextn_predict_layers=drafted,
        num_experts_per_tok=file.number("num_experts_per_tok") if "num_experts_per_tok" in file.data else 8,
        indexer_layers=_indexer_layers(file, sizes["num_hidden_layers"]) if "index_n_heads" in sizes else None,
        attention_bias=grouped and file.switch("attention_bias"),
        use_qk_norm=grouped and file.switch("use_qk_norm"),
        mtp_embeddings=architecture.mtp_embeddings and drafted > 0,
    )


def _dense_layers(file: _File, layers: int) -> int:
    """Leading layers without experts; newer files list every layer instead."""
    kinds = file.data.get("mlp_layer_types")
    if "first_k_dense_replace" in file.data or kinds is None:
        dense = file.number("first_k_dense_replace", 0)
        return dense if dense <= layers else file.refuse("first_k_dense_replace", f"at most {layers}", dense)
    return _kinds(file, "mlp_layer_types", layers, ("dense", "sparse")).count("dense")


def _indexer_layers(file: _File, layers: int) -> Optional[int]:
    """Layers that have an indexer of their own, where the file says that some share one."""
    if file.data.get("indexer_types") is None:
        return None
    return _kinds(file, "indexer_types", layers, ("full", "shared")).count("full")


def _kinds(file: _File, key: str, layers: int, kinds: Sequence[str]) -> list[str]:
    """One word per layer. The list may also have the MTP layers."""
    value = file.data[key]
    expected = f"a list of {' or '.join(kinds)} for each of {layers} layers"
    if not isinstance(value, list) or len(value) < layers or not set(map(str, value)) <= set(kinds):
        file.refuse(key, expected, value)
    return value[:layers]


def _weights(file: _File) -> tuple[memory.WeightFormat, Optional[int], list[str]]:
    """The checkpoint's weight format, the width of its blocks, and what had to be assumed about it."""
    quantised = file.data.get("quantization_config")
    if quantised is None:
        return "bf16", None, []
    if not isinstance(quantised, Mapping):
        file.refuse("quantization_config", "an object", quantised)
    method = str(quantised.get("quant_method"))
    reader = {
        "fp8": _fp8,
        "compressed-tensors": _compressed_tensors,
        "modelopt": _modelopt,
        "modelopt_fp4": _modelopt,
        "awq": _int4,
        "gptq": _int4,
        "quark": _quark,
        "w4afp8": _w4afp8,
    }.get(method)
    if reader is None:
        expected = "fp8, compressed-tensors, modelopt, awq, gptq, quark or w4afp8"
        file.refuse("quantization_config.quant_method", expected, quantised.get("quant_method"))
    weights = reader(file, quantised)
    assumed = {
        "nvfp4": ["Taken as NVFP4 for the routed experts and BF16 for everything else."],
        "mxfp4": ["Taken as MXFP4 for the routed experts and BF16 for everything else."],
        "w4afp8": ["Taken as INT4 for the routed experts and FP8 for all other linear layers."],
        "int4": ["Taken as INT4 for all other linear layers, without the MTP layer, which quantising drops."],
    }
    block = _BLOCK[0] if weights in ("fp8", "w4afp8") and quantised.get("weight_block_size") is not None else None
    return weights, block, list(assumed.get(weights, []))


def _fp8(file: _File, quantised: Mapping[str, Any]) -> memory.WeightFormat:
    block = quantised.get("weight_block_size")
    if block is not None and block != _BLOCK:
        file.refuse("quantization_config.weight_block_size", json.dumps(_BLOCK), block)
    return "fp8"


def _compressed_tensors(file: _File, quantised: Mapping[str, Any]) -> memory.WeightFormat:
    groups = quantised.get("config_groups")
    entries = [entry for entry in groups.values() if isinstance(entry, Mapping)] if isinstance(groups, Mapping) else []
    formats = {quantised.get("format"), *(entry.get("format") for entry in entries)}
    if "nvfp4-pack-quantized" in formats:
        return "nvfp4"
    if "pack-quantized" in formats:
        for entry in entries:
            _check_int4(file, entry.get("weights") or {}, "quantization_config.config_groups", "num_bits")
        return "int4"
    if "float-quantized" in formats:
        return "fp8"
    expected = "nvfp4-pack-quantized, pack-quantized or float-quantized"
    file.refuse("quantization_config.format", expected, quantised.get("format"))


def _modelopt(file: _File, quantised: Mapping[str, Any]) -> memory.WeightFormat:
    algorithm = str(quantised.get("quant_algo")).upper()
    layers = quantised.get("quantized_layers")
    found = {algorithm}
    if algorithm == "MIXED_PRECISION" and isinstance(layers, Mapping):
        found = {str(layer.get("quant_algo")).upper() for layer in layers.values() if isinstance(layer, Mapping)}
    if found & {"NVFP4", "W4A16_NVFP4"}:
        return "nvfp4"
    if found & {"FP8", "FP8_PB_WO"}:
        return "fp8"
    file.refuse("quantization_config.quant_algo", "NVFP4, FP8 or MIXED_PRECISION of them", quantised.get("quant_algo"))


def _w4afp8(_file: _File, _quantised: Mapping[str, Any]) -> memory.WeightFormat:
    return "w4afp8"


def _int4(file: _File, quantised: Mapping[str, Any]) -> memory.WeightFormat:
    _check_int4(file, quantised, "quantization_config", "bits")
    return "int4"


def _check_int4(file: _File, scheme: Mapping[str, Any], where: str, bits: str) -> None:
    if scheme.get(bits) != 4:
        file.refuse(f"{where}.{bits}", "4", scheme.get(bits))
    if scheme.get("group_size") != _GROUP_SIZE:
        file.refuse(f"{where}.group_size", str(_GROUP_SIZE), scheme.get("group_size"))


def _quark(file: _File, quantised: Mapping[str, Any]) -> memory.WeightFormat:
    layers = quantised.get("layer_quant_config")
    schemes = [quantised.get("global_quant_config"), *(layers.values() if isinstance(layers, Mapping) else [])]
    weights = [scheme.get("weight") for scheme in schemes if isinstance(scheme, Mapping)]
    types = {str(weight.get("dtype")) for weight in weights if isinstance(weight, Mapping)}
    if types & {"fp4", "fp4_e2m1"}:
        return "mxfp4"
    if "fp8_e4m3" in types:
        return "fp8"
    file.refuse("quantization_config.global_quant_config.weight.dtype", "fp4 or fp8_e4m3", sorted(types))


def _served_name(title: str, weights: str) -> str:
    """A name for requests: the title in lower case with the format, unless it says that already or is BF16."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._") or "model"
    return plain if weights == "bf16" or plain.endswith(weights) else f"{plain}-{weights}"

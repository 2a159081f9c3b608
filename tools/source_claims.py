"""Figures that public guides state, computed from the catalogue."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Mapping
from typing import Any, Union

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from tools.source_commands import plan, refusal
from tools.source_data import SourceError

# A claimed number this near to the computed one is right.
TOLERANCE = 0.01


def compute(figure: Mapping[str, Any]) -> Any:
    """The figure that a claim is compared with. ``figure`` is one of

    * ``{parameters: <model>, mtp: bool}``: billions; ``{checkpoint: <model>, precision:}``: GB;
    * ``{tensor_parallel: <model>}``: sizes that divide its heads;
    * ``{plan: <intent>, at: memory.token_pool, times: 8}``: a value of a plan;
    * ``{serves: <intent>}``: "planned" or "refused";
    * ``{catalogue: [models, GLM-5, context_length]}``: a fact, by its path;
    * ``{formula: 20.80 / 3600}``: arithmetic.
    """
    if "parameters" in figure:
        config = catalog.load().models[figure["parameters"]].config
        return memory.parameters(config, figure["mtp"]) / 1e9
    if "checkpoint" in figure:
        model = catalog.load().models[figure["checkpoint"]]
        form = model.precisions[figure["precision"]]
        return memory.checkpoint_bytes(model.config, form.weights, form.mtp, form.mtp_weights) / 1e9
    if "tensor_parallel" in figure:
        config = catalog.load().models[figure["tensor_parallel"]].config
        return memory.valid_tensor_parallel(config, replicate_kv=True)
    if "plan" in figure:
        value: Any = plan(figure["plan"])
        for part in figure["at"].split("."):
            value = value[part]
        return value * figure.get("times", 1)
    if "serves" in figure:
        return "refused" if refusal(figure["serves"]) else "planned"
    if "catalogue" in figure:
        return functools.reduce(_step, figure["catalogue"], catalog.load())
    value = calculate(str(figure["formula"]))
    return int(value) if value.is_integer() else value


def _step(place: Any, name: Union[str, int]) -> Any:
    if isinstance(place, (Mapping, list)):
        return place[name]  # type: ignore[index]
    return getattr(place, str(name))


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculate(text: str) -> float:
    """The value of an expression of numbers and + - * /."""
    return _calculated(ast.parse(text, mode="eval").body, text)


def _calculated(node: ast.expr, text: str) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_calculated(node.left, text), _calculated(node.right, text)))
    raise SourceError(f"{text!r} is not arithmetic")


def verdict(claimed: Any, computed: Any) -> str:
    """``right`` or ``wrong``. A number may be 1 % off; one of several numbers may be claimed of a list."""
    if isinstance(computed, list) and not isinstance(claimed, list):
        return "right" if claimed in computed else "wrong"
    if isinstance(computed, (int, float)) and isinstance(claimed, (int, float)) and not isinstance(claimed, bool):
        return "right" if abs(claimed - computed) <= TOLERANCE * abs(computed) else "wrong"
    return "right" if claimed == computed else "wrong"

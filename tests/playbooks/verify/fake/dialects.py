"""The ways in which healthy endpoints differ: engines, what stands before them, and how a model words things."""

from __future__ import annotations

from dataclasses import replace

from .answers import Manner
from .wire import Dialect

VLLM = Dialect()
SGLANG = Dialect("sglang", engine="sglang", reasoning_field="reasoning_content")

DIALECTS = [
    VLLM,
    SGLANG,
    replace(VLLM, name="vllm, a letter each", piece=1),
    replace(SGLANG, name="sglang, a letter each", piece=1),
    replace(VLLM, name="vllm, all in one", piece=0),
    replace(SGLANG, name="sglang, all in one", piece=0),
    replace(VLLM, name="the last piece has the finish_reason", own_finish=False),
    replace(VLLM, name="thought and text in one piece", glued=True, piece=9),
    replace(SGLANG, name="sglang, thought and text in one piece", glued=True, piece=9),
    replace(VLLM, name="no usage", usage=False),
    replace(SGLANG, name="sglang, no usage", usage=False),
    replace(VLLM, name="no cached tokens in usage", cached=False),
    replace(SGLANG, name="sglang, no cached tokens in usage", cached=False),
    replace(VLLM, name="no max_model_len", card=False),
    replace(VLLM, name="CRLF", line_end="\r\n"),
    replace(VLLM, name="no blank after the colon", prefix="data:"),
    replace(VLLM, name="lines cut anywhere", write=7, piece=3, manner=Manner(chinese=True)),
    replace(SGLANG, name="sglang, letters cut anywhere", write=5, piece=2, manner=Manner(chinese=True)),
    replace(VLLM, name="keeps the connection alive", keep_alive=": ping"),
    replace(SGLANG, name="sglang behind a proxy", keep_alive=": ping", line_end="\r\n", chunked=False),
    replace(VLLM, name="ends with the connection", chunked=False),
    replace(VLLM, name="named events", prefix="event: message\nid: 7\ndata: "),
    replace(VLLM, name="no end of the stream in words", done=False),
    replace(VLLM, name="both fields of reasoning", older=True),
    replace(VLLM, name="usage in every chunk", running_usage=True),
    replace(SGLANG, name="sglang, usage in every chunk", running_usage=True),
    replace(VLLM, name="the role in every chunk", role_everywhere=True),
    replace(VLLM, name="an emoji", manner=Manner(after_facts=" \U0001f30d")),
    replace(VLLM, name="a new emoji", manner=Manner(after_facts=" \U0001fae8")),
    replace(VLLM, name="slow but steady", pace=0.005, piece=9),
    replace(VLLM, name="thinks in Chinese", manner=Manner(chinese=True)),
    replace(SGLANG, name="sglang, thinks in Chinese", manner=Manner(chinese=True)),
    replace(VLLM, name="always thinks", manner=Manner(always_thinks=True)),
    replace(SGLANG, name="sglang, always thinks", manner=Manner(always_thinks=True)),
    replace(VLLM, name="bold", manner=Manner("**{value}**")),
    replace(VLLM, name="a sentence", manner=Manner("The answer is {value}.")),
    replace(VLLM, name="the sum before it", manner=Manner("{sum} = {value}")),
    replace(VLLM, name="formula", manner=Manner("$\\boxed{{{value}}}$")),
    replace(VLLM, name="blank lines around it", manner=Manner("\n\n{value}\n")),
    replace(SGLANG, name="a word before calls", manner=Manner(before_calls="I will look that up.\n")),
    replace(VLLM, name="vllm, a word before calls", manner=Manner(before_calls="Let me check — one moment.")),
    replace(VLLM, name="code", manner=Manner("`{value}`")),
    replace(VLLM, name="arguments over several lines", manner=Manner(indent=2)),
    replace(SGLANG, name="sglang, arguments over several lines", manner=Manner(indent=2)),
]

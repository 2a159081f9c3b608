"""Compare commands that public guides print with what the planner renders for the same intent, argument by argument.

The commands, and why ours differ, are data (tests/unit/sources/data/*.yml). Nothing in the data says *that* something
differs: this module reads the guide's command line with the engine's flag table, plans the intent, and computes it.
tools/sources_page.py writes docs/sources.md and the golden files from that; tests/unit/sources requires that what is
documented is exactly what was computed.

A command line becomes *items*, a mapping of what (``--max-num-seqs``, ``env HF_HOME``, ``docker --ipc``, ``mount
/root/.cache/huggingface``, ``image``, …) to its value as text; two of them can then be compared key by key.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT)]

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table as variables
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, recipes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import ImageChosen, Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica as unit
from tools.source_data import Difference, Entry, Group, Intent, Reason, SourceError, groups, sources

GOLDEN = ROOT / "tests" / "unit" / "sources" / "golden"

# The address of a fleet's host in the examples; a plan without hosts has the loopback address.
ADDRESS = "10.0.0.5"

VARIABLES = {option: item.name for option, item in variables.options(variables.load()).items()}
_DOCKER_VALUES = {
    "--cap-add", "--cap-drop", "--cgroup-parent", "--device", "--entrypoint", "--env", "--env-file", "--gpus",
    "--group-add", "--ipc", "--log-driver", "--mount", "--name", "--network", "--pids-limit", "--publish", "--pull",
    "--security-opt", "--shm-size", "--tmpfs", "--ulimit", "--user", "--volume",
}  # fmt: skip
_DOCKER_SHORT = {"-e": "--env", "-p": "--publish", "-v": "--volume"}
_DOCKER_SWITCHES = {"--init", "--privileged", "--read-only", "--rm", "-it"}
_DOCKER_REPEATED = {"--cap-add", "--device", "--env-file", "--group-add", "--security-opt", "--tmpfs", "--ulimit"}
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
_PROGRAMS = (["vllm", "serve"], ["-m", "vllm.entrypoints.openai.api_server"], ["-m", "sglang.launch_server"])
# Kinds of items, in the order in which they are shown; engine arguments start with a dash.
_ORDER = ("image", "program", "at start", "model", "spelling", "package", "uv", "-", "env", "gpus", "port", "docker",
          "mount")  # fmt: skip

Items = dict[str, str]


# --- plans -----------------------------------------------------------------------------------------------------------


def plan(intent: Mapping[str, Any]) -> Plan:
    """The plan of an intent in the data. Raises planner.PlanError."""
    return planner.make(planner.Intent(listen_address=ADDRESS, **intent), catalog.load())


def refusal(intent: Mapping[str, Any]) -> str:
    """The text of the refusal; empty when the intent is planned."""
    try:
        plan(intent)
    except planner.PlanError as error:
        return str(error)
    return ""


def changed(intent: Mapping[str, Any], change: Mapping[str, Any]) -> Intent:
    """An intent with another one laid over it; engine arguments are merged, not replaced."""
    merged = {**intent, **change}
    if "engine_args" in change:
        merged["engine_args"] = {**intent.get("engine_args", {}), **change["engine_args"]}
    return merged


def question(intent: Mapping[str, Any]) -> str:
    """What a person types to get the plan."""
    words = ["ansible-playbook", "plan.yml"]
    for key, value in intent.items():
        text = yaml.safe_dump({VARIABLES[key]: value}, default_flow_style=True, width=10**6).strip()
        plain = "" if value is None else value
        words += ["-e", text if isinstance(value, Mapping) else f"{VARIABLES[key]}={plain}"]
    return shlex.join(words)


def table_of(made: Plan) -> flags.Table:
    """The flag table of the planned engine version."""
    return flags.load(made["engine"]["name"], made["engine"]["version"])


# --- command lines -> items ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A command line taken apart: ``arguments`` belong to the engine, ``items`` is everything else that was said."""

    items: Items
    arguments: list[str]
    docker: bool


def source_line(entry: Entry) -> Line:
    """A guide's command line. Raises SourceError."""
    words = shlex.split(entry.command)
    items: Items = {}
    while words and _ASSIGNMENT.fullmatch(words[0]):
        name, _equals, value = words.pop(0).partition("=")
        items[f"env {name}"] = value
    docker = words[:2] == ["docker", "run"]
    if docker:
        found, words = _docker(words[2:], entry.id)
        items.update(found)
        items, words = _script(items, words)
    return Line({**items, **_program(words, docker)}, _arguments(words), docker)


def our_words(made: Plan) -> list[str]:
    """What the unit of a plan runs."""
    # Groups are numbers on a host; here their names stand for them.
    groups_by_name = {name: ["x", name] for name in made["device_groups"]}
    return list(unit.replica(made, groups_by_name)["exec"]["start"])


def our_line(made: Plan) -> Line:
    """Our command line."""
    words = our_words(made)
    env = {f"env {name}": value for name, value in made["env"].items()}
    if made["runtime"]["kind"] == "venv":
        return Line({**env, **_program(words, False)}, _arguments(words), False)
    items, rest = _docker(words[2:], "the unit")
    secret = made["secret"]
    if secret["kind"] == "env":
        # The shell that reads the key: its script and name, and the image's own program.
        rest = rest[3 + len(secret["program"]) :]
    image = image_of(made)
    if image["build"]:
        items["image gets"] = " ".join(image["build"]["packages"])
    return Line({**env, **items, **_program(rest, True)}, _arguments(rest), True)


def _docker(words: Sequence[str], where: str) -> tuple[Items, list[str]]:
    """Options of ``docker run`` and the image as items, and what follows the image."""
    items: Items = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word, equals, value = rest.pop(0).partition("=")
        name = _DOCKER_SHORT.get(word, word)
        if name in _DOCKER_SWITCHES:
            items[f"docker {name}"] = "yes"
            continue
        if name not in _DOCKER_VALUES:
            raise SourceError(f"{where}: docker option {word} is not known here")
        items.update(_docker_item(name, value if equals else rest.pop(0)))
    items["image"] = rest.pop(0)
    return items, rest


def _docker_item(name: str, value: str) -> Items:
    if name == "--env":
        variable, _equals, content = value.partition("=")
        return {f"env {variable}": content}
    if name == "--publish":
        parts = value.split(":")
        return {"port": value if len(parts) > 2 else f"0.0.0.0:{value}"}
    if name == "--volume":
        source, target = value.split(":")[:2]
        return {f"mount {target}": f"{source} (read-write)"}
    if name == "--mount":
        fields = dict(part.partition("=")[::2] for part in value.split(","))
        access = "read-only" if "readonly" in fields else "read-write"
        return {f"mount {fields['target']}": f"{fields['source']} ({access})"}
    if name == "--gpus" or value.startswith("nvidia.com/gpu="):
        return {"gpus": f"{name} {value}"}
    if name in _DOCKER_REPEATED:
        return {f"docker {name} {value}": "yes"}
    return {f"docker {name}": value}


def _script(items: Items, words: list[str]) -> tuple[Items, list[str]]:
    """A shell script as the container's command: what it does before it starts the engine, and the engine's command."""
    if words[:1] != ["-c"]:
        return items, words
    *before, last = (part.strip() for part in words[1].split("&&"))
    steps = {"at start": "; ".join(before)} if before else {}
    return {**items, **steps}, shlex.split(last)


def _program_end(words: Sequence[str]) -> int:
    """Where the engine's arguments begin; 0 when no program is named."""
    for program in _PROGRAMS:
        for end in range(2, min(len(words), 4) + 1):
            if [words[end - 2].rpartition("/")[2], words[end - 1]] == program:
                return end
    return 0


def _program(words: Sequence[str], docker: bool) -> Items:
    if not words or words[0].endswith("/bash"):
        return {}
    end = _program_end(words)
    # An image of vLLM starts `vllm serve` by itself.
    return {"program": shlex.join(words[:end]) if end or not docker else "vllm serve"}


def _arguments(words: Sequence[str]) -> list[str]:
    return list(words[_program_end(words) :])


def engine_items(table: flags.Table, words: Sequence[str]) -> tuple[Items, dict[str, str], list[str]]:
    """An engine's arguments as items, how options were spelled (by their name here), and words this version refuses."""
    items: Items = {}
    spelled: dict[str, str] = {}
    unknown: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            items["model"] = word
            continue
        name, equals, value = word.partition("=")
        head, dot, inner = name.partition(".")
        option = _option(table, head)
        if option is None:
            unknown.append(head)
            items[head] = value if equals else _value(rest)
            continue
        key = option.key + dot + inner
        spelled[key] = name
        if option.nargs == 0:
            items[key] = "no" if head == option.negative else "yes"
        else:
            items[key] = value if equals else _value(rest)
    return items, spelled, unknown


def _value(rest: list[str]) -> str:
    values = []
    while rest and not rest[0].startswith("-"):
        values.append(rest.pop(0))
    return " ".join(values) or "yes"


def _option(table: flags.Table, name: str) -> Optional[flags.Option]:
    """The option, also by an unambiguous beginning of its name, as argparse takes it."""
    if name in table.options:
        return table.options[name]
    found = {option.key: option for full, option in table.options.items() if full.startswith(name)}
    return next(iter(found.values())) if len(found) == 1 else None


# --- differences -----------------------------------------------------------------------------------------------------


def differences(entry: Entry, made: Plan) -> list[Difference]:
    """What the guide's command and ours do not have in common."""
    theirs, ours = _both(entry, made)
    found = [
        Difference(what, theirs.get(what), ours.get(what))
        for what in {*theirs, *ours}
        if not _same(theirs.get(what), ours.get(what))
    ]
    return sorted(found, key=lambda item: (_rank(item.what), item.what))


def _same(one: Optional[str], other: Optional[str]) -> bool:
    """Whether two values mean the same: 0.90 is 0.9."""
    if one == other or one is None or other is None:
        return one == other
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _rank(what: str) -> int:
    return next(index for index, start in enumerate(_ORDER) if what.startswith(start))


def _both(entry: Entry, made: Plan) -> tuple[Items, Items]:
    if entry.kind == "install":
        return _install(entry), _installed(made)
    if entry.kind == "pull":
        return {"image": shlex.split(entry.command)[-1]}, {"image": image_of(made)["reference"]}
    if entry.kind == "advice":
        return _advice(entry, made)
    theirs, ours = source_line(entry), our_line(made)
    if entry.kind == "container":
        return theirs.items, {key: value for key, value in ours.items.items() if key != "program"}
    table = table_of(made)
    arguments, spelling, _unknown = engine_items(table, theirs.arguments)
    our_arguments, our_spelling, _unknown = engine_items(table, ours.arguments)
    found, own = {**theirs.items, **arguments}, {**ours.items, **our_arguments}
    if not theirs.docker:
        # What only a container has cannot be compared with a bare command.
        container = ("image", "docker", "mount", "port", "gpus")
        own = {key: value for key, value in own.items() if not key.startswith(container)}
    model = made_option(made, "model") or "--model"
    for items in (found, own):
        if model in items:
            items["model"] = items.pop(model)
    if made["engine"]["name"] == "vllm" and "--model" in spelling and "serve" in found["program"]:
        found["spelling --model"], own["spelling --model"] = "--model", "positional"
    for key, name in spelling.items():
        head = name.split(".")[0]
        if head not in table.options:
            found[f"spelling {head}"] = head
            own[f"spelling {head}"] = our_spelling.get(key, key)
    return found, own


def _advice(entry: Entry, made: Plan) -> tuple[Items, Items]:
    """The advised options, and what we render for them unasked."""
    unasked = plan({key: value for key, value in entry.intent.items() if key != "engine_args"})
    table = table_of(made)
    theirs, _spelled, _unknown = engine_items(table, shlex.split(entry.command))
    ours, _spelled, _unknown = engine_items(table, our_line(unasked).arguments)
    return theirs, {what: value for what, value in ours.items() if what in theirs}


def made_option(made: Plan, name: str) -> Optional[str]:
    """The canonical name of an option that the engine's catalogue entry calls ``name``."""
    flag: Optional[str] = getattr(catalog.load().engines[made["engine"]["name"]].options, name)
    return None if flag is None else table_of(made).find(flag).key


def _install(entry: Entry) -> Items:
    """``uv pip install`` as items: packages and options."""
    words = shlex.split(entry.command)
    if words[:3] != ["uv", "pip", "install"]:
        raise SourceError(f"{entry.id}: expected uv pip install")
    items: Items = {}
    rest = words[3:]
    while rest:
        word = rest.pop(0)
        if word in ("-U", "--pre"):
            items[f"uv {word}"] = "yes"
        elif word.startswith("--"):
            items[f"uv {word}"] = rest.pop(0)
        else:
            name = "transformers" if "transformers" in word else re.split(r"[=<>]", word)[0]
            items[f"package {name}"] = word
    return items


def image_of(made: Plan) -> ImageChosen:
    assert made["image"], "only plans with an engine in a virtual environment have no image"
    return made["image"]


def _installed(made: Plan) -> Items:
    runtime = made["runtime"]
    assert runtime["kind"] == "venv"
    name = runtime["package"].split("==")[0]
    items = {f"package {name}": runtime["package"], "uv --python": runtime["python"]}
    if runtime["index_urls"]:
        items["uv --extra-index-url"] = " ".join(runtime["index_urls"])
    return items


def applicable(entry: Entry, made: Plan) -> list[Group]:
    """The groups whose differences this command shares."""
    docker = entry.kind in ("serve", "container") and source_line(entry).docker
    facts = {
        "kind": entry.kind,
        "form": "docker" if docker else "bare",
        "engine": made["engine"]["name"],
        "runtime": made["runtime"]["kind"],
        "vendor": made["accelerator"]["vendor"],
        "secret": made["secret"]["kind"],
    }
    return [group for group in groups() if all(facts[key] in values for key, values in group.when.items())]


def documented(entry: Entry, made: Plan) -> dict[str, Reason]:
    """The reason for each item that is said to differ; the entry's own before a group's."""
    shared = {what: reason for group in applicable(entry, made) for reason in group.differences for what in reason.what}
    return {**shared, **own_reasons(entry)}


def own_reasons(entry: Entry) -> dict[str, Reason]:
    """The reasons that the entry gives itself."""
    return {what: reason for reason in entry.differences for what in reason.what}


# --- reasons that can be proven --------------------------------------------------------------------------------------


def doubt(entry: Entry, made: Plan, found: Difference, reason: Reason, wrong: Iterable[str]) -> str:
    """What speaks against the class of a reason; empty when nothing does. ``wrong`` are the ids of wrong claims."""
    engine = made["engine"]["name"]
    flag = found.what.split(".")[0]
    versions = catalog.load().engines[engine].versions
    known = [version for version in versions if flag in flags.load(engine, version).options]
    here = table_of(made).options.get(flag)
    if reason.reason == "missing-flag":
        return f"{engine} {known[0]} to {known[-1]} have {flag}" if known or found.ours else ""
    if reason.reason == "renamed":
        respelled = found.what.startswith("spelling ") and found.source and found.ours
        asked = {table_of(made).find(name).key for name in entry.intent.get("engine_args", {})}
        return "" if respelled or (found.source is None and flag in asked) else "it is not asked for by another name"
    if reason.reason == "deprecated":
        gone = flag.startswith("--") and here is None and bool(known)
        marked = here is not None and here.deprecated
        return "" if gone or marked or found.what in ("program", "spelling --model") else f"{flag} is in use"
    if reason.reason == "default-already":
        return "" if here is not None and found.ours is None else f"{flag} does not exist, or we render it"
    if reason.reason == "unsafe":
        return "" if found.source is not None else "the source has nothing unsafe there"
    if reason.reason == "does-not-fit":
        return "" if reason.proof and refusal(changed(entry.intent, reason.proof)) else "no refusal proves it"
    if reason.reason == "wrong-claim":
        return "" if reason.claim in set(wrong) else f"there is no wrong claim {reason.claim!r}"
    from_recipe = _from_recipe(entry, made, found)
    if reason.reason == "recipe":
        return "" if from_recipe else "no layer or recipe of the catalogue sets it so"
    return "the recipe sets it, not the plan" if from_recipe and found.source is None else ""


def _from_recipe(entry: Entry, made: Plan, found: Difference) -> bool:
    """Whether the catalogue's recipes, rather than the planner, put this item into our command."""
    if found.ours is None:
        return False
    choice = Choice(planner.Intent(listen_address=ADDRESS, **entry.intent), catalog.load())
    recipe = recipes.published(choice.known, choice.cell)
    way = recipes.layouts(choice.cell, recipe, divides_attention=choice.engine.options.data_attention is not None)[0]
    composed = recipes.compose(choice.layers, choice.cell, recipe, way, choice.context_goal)
    if found.what.startswith("env "):
        return found.what.removeprefix("env ") in composed.env
    table = table_of(made)
    names = flags.merge(table, flags.respelled(table, composed.args, choice.engine.renames), {})
    return found.what.split(".")[0] in names


def as_printed(entry: Entry, made: Plan) -> str:
    """Whether the guide's engine version, or else the planned one, has the options of the guide's command line."""
    engine = made["engine"]["name"]
    known = catalog.load().engines[engine].versions
    version = entry.engine_version if entry.engine_version in known else made["engine"]["version"]
    arguments = source_line(entry).arguments
    _items, _spelled, unknown = engine_items(flags.load(engine, str(version)), arguments)
    if unknown:
        return f"{engine} {version} refuses it: it has no {', '.join(unknown)}"
    return f"{engine} {version} has every option in it"


def fails_as_printed(entry: Entry) -> list[str]:
    """Why the guide's command cannot start its engine, from the differences that are documented; empty when it can."""
    if entry.kind != "serve":
        return []
    return [
        reason.why
        for reason in entry.differences
        if reason.reason in ("missing-flag", "does-not-fit") or "image gets" in reason.what
    ]


# --- golden ----------------------------------------------------------------------------------------------------------


def golden(entry: Entry) -> str:
    """Everything that is computed for an entry, as text to review: the question, our full command, the differences."""
    lines = [f"# {entry.id}: {entry.title}", "", "question:", f"  {question(entry.intent)}"]
    if entry.expect == "refused":
        return "\n".join([*lines, "", "refused:", f"  {refusal(entry.intent)}", *_literal_lines(entry)]) + "\n"
    made = plan(entry.intent)
    if entry.kind in ("serve", "container", "advice"):
        lines += ["", "runs:", *(f"  {line}" for line in wrapped(our_words(made)))]
        lines += ["", "environment:", *(f"  {name}={value}" for name, value in made["env"].items())]
    if entry.kind == "install":
        lines += ["", "installs:", *(f"  {key}: {value}" for key, value in made["runtime"].items())]
    lines += ["", "memory:", f"  {made['memory']['arithmetic']}"]
    if entry.kind == "serve":
        lines += ["", "as printed in the source:", f"  {as_printed(entry, made)}"]
    if entry.compared:
        lines += ["", "differences (source -> ours):"]
        lines += [f"  {item.what}: {_shown(item.source)} -> {_shown(item.ours)}" for item in differences(entry, made)]
    return "\n".join([*lines, *_literal_lines(entry)]) + "\n"


def _literal_lines(entry: Entry) -> list[str]:
    lines = []
    for item in entry.literal:
        text = yaml.safe_dump(item.change, default_flow_style=True, width=10**6).strip()
        lines += ["", f"refused with {text}:", f"  {refusal(changed(entry.intent, item.change))}"]
    return lines


def _shown(value: Optional[str]) -> str:
    return "-" if value is None else value


def wrapped(words: Sequence[str], quote: Callable[[str], str] = shlex.quote) -> list[str]:
    """A command over several lines, one option on each, as people write it."""
    lines: list[str] = []
    last = ""
    for word in words:
        alone = " " not in lines[-1].strip() if lines else False
        joins = last == "-m" or word == "-m" or (not word.startswith("-") and (len(lines) == 1 or alone))
        if lines and joins:
            lines[-1] += f" {quote(word)}"
        else:
            lines.append(f"  {quote(word)}" if lines else quote(word))
        last = word
    return [line + " \\" for line in lines[:-1]] + lines[-1:]


def as_typed(word: str) -> str:
    """A word of a guide's command as a person would write it: the shell must still see ~ and $(pwd)."""
    if "'" in word:
        return f'"{word}"'
    return word if re.fullmatch(r"[\w@%+=:,./~$()…-]+", word) else shlex.quote(word)


def golden_file(entry: Entry) -> Path:
    """Where the golden text of an entry is kept."""
    return GOLDEN / f"{entry.id}.txt"


def golden_files() -> dict[Path, str]:
    """Each golden file and the text it should have."""
    return {
        golden_file(entry): golden(entry) for source in sources() for entry in source.entries if entry.kind != "other"
    }

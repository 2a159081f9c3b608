# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an intent names in the catalogue, and how a plan is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Optional, TypeVar

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Image, Variant
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.overlay import OwnRecipe
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import (
    Accelerator,
    Catalog,
    Checkpoint,
    KnownIssue,
    Layer,
    Model,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, issues, model_config, recipes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.disks import HostDisk
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import ExtraRepository

_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_RELEASE = re.compile(r"\d+(\.\d+)+(\.?(a|b|rc|post|dev)\d+)*")
RUNTIMES = ("container", "venv")
# What is served of a model without another word, where it has it: what its author publishes for serving.
USUAL_PRECISION = "fp8"
# More than any host has: accelerators that are divided into partitions count as so many.
MOST_GPUS = 64

T = TypeVar("T")


class PlanError(Refusal):
    """The intent cannot work; the text has what was asked, why it fails, with numbers, and what to do next."""


@dataclass(frozen=True)
class Intent:
    """What is asked for. None means the catalogue's choice.

    ``accelerator_count`` is what the host has, and ``gpus`` which of them may be used (none named: all); ``replicas``
    share those evenly, and ``replica`` is the one this plan is for. Without ``precision`` it is fp8 where the model has
    that, else its first one in the catalogue. With ``nodes`` > 1 one replica takes all of that many hosts, of which
    this is number ``node_rank``. ``starts`` is what starts of the fleet reported (starts.py), and ``disk`` what this
    host's weights are on (disks.py), where that is known.
    """

    model: str
    accelerator: str
    accelerator_count: int
    precision: str = ""
    engine: Optional[str] = None
    engine_version: Optional[str] = None
    image: Optional[str] = None
    image_variant: Optional[str] = None
    profile: str = "agentic"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    engine_env: Mapping[str, Any] = field(default_factory=dict)
    extra_mounts: Sequence[Mapping[str, Any]] = ()
    extra_repositories: Sequence[str] = ()
    served_model_name: Optional[str] = None
    listen_address: str = "127.0.0.1"
    listen_port: int = 8000
    engine_port: int = 18000
    tls: str = "none"
    tls_names: Sequence[str] = ()
    acme_directory: str = ""
    acme_email: str = ""
    acme_agree: bool = False
    public_address: Optional[str] = None
    data_dir: str = "/var/lib/glm"
    config_dir: str = "/etc/glm"
    engine_dir: str = "/opt/glm/engines"
    revision: str = "main"
    runtime: str = "container"
    gpus: Sequence[int] = ()
    replicas: int = 1
    replica: int = 0
    nodes: int = 1
    # RDMA between the hosts of a replica; not known is no.
    rdma: bool = False
    node_rank: int = 0
    head_address: Optional[str] = None
    node_addresses: Sequence[str] = ()
    interface: Optional[str] = None
    repository: Optional[str] = None
    model_config: Optional[str] = None
    driver_version: Optional[str] = None
    # Negative: as long as the plan finds.
    drain_seconds: int = -1
    allow_unsafe_weights: bool = False
    starts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disk: Optional[HostDisk] = None

    @property
    def hf_home(self) -> str:
        """Where the weights are on the host."""
        return f"{self.data_dir.rstrip('/')}/huggingface"

    def elsewhere(self, **changes: Any) -> Intent:
        """The same for one replica on other hardware or with another engine, without what is only for this one."""
        plain: dict[str, Any] = {
            "engine_version": None, "engine_args": {}, "engine_env": {}, "image": None, "image_variant": None,
            "gpus": (), "replicas": 1, "replica": 0, "node_rank": 0, "driver_version": None,
        }  # fmt: skip
        return replace(self, **{**plain, **changes})


class Choice:
    """The catalogue entries that an intent names. Raises PlanError for a name that does not exist."""

    def __init__(self, intent: Intent, known: Catalog) -> None:
        if isinstance(intent.gpus, str) or not isinstance(intent.gpus, Sequence):
            raise PlanError(
                f"glm_gpus: expected a list of indices, found {intent.gpus!r}", "correct glm_gpus, or leave it empty"
            )
        self.known = known
        self.model = _model(intent, known)
        intent = replace(intent, precision=_precision(intent, self.model))
        self.intent = intent
        self.checkpoint = _look_up(
            intent.precision, self.model.precisions, f"precision of {self.model.name}", "glm_precision"
        )
        self.accelerator = _accelerator(intent, known)
        engines = {name: known.engines[name] for name in self.model.engines}
        able = [name for name in engines if engines[name].formats.get(self.checkpoint.weights, "") is not None]
        preferred = min(able or engines, key=lambda name: engines[name].preference)
        self.engine = _look_up(intent.engine or preferred, engines, "engine", "glm_engine")
        if self.engine.name not in able:
            raise PlanError(
                f"{self.engine.name} has no kernels for {self.model.name} in {intent.precision}",
                f"leave glm_engine empty, or set it to {' or '.join(able)}" if able else "choose another glm_precision",
            )
        _look_up(intent.profile, known.profiles, "profile", "glm_profile")
        self.version = self._version()
        # Added by plan/make.py: what would work instead. Refusals found while looking for that have none of their own.
        self.alternatives: Callable[[], str] = lambda: ""
        # Likewise: the repositories beside the model's, whose folders take the place of their names in arguments.
        self.beside: Sequence[ExtraRepository] = ()
        # Likewise: whether it plans with these arguments laid over glm_engine_args.
        self.plans_with: Callable[[Mapping[str, Any]], bool] = lambda _change: False

    @property
    def title(self) -> str:
        """What was asked, in a few words."""
        intent = self.intent
        hosts = f"{intent.nodes} hosts of " if intent.nodes > 1 else ""
        return (
            f"{self.model.name} {intent.precision} on {hosts}{self._part}{intent.accelerator_count}x "
            f"{self.accelerator.name} "
            f"with {self.engine.name} {self.version}"
        )

    @property
    def _part(self) -> str:
        return f"{len(self.intent.gpus)} of " if self.intent.gpus else ""

    @property
    def usable(self) -> list[int]:
        """The GPUs of the host that its replicas share."""
        # A count beyond what any host has is refused (check), and needs no list of its own until then.
        return list(self.intent.gpus) or list(range(min(self.intent.accelerator_count, MOST_GPUS + 1)))

    @property
    def repository(self) -> str:
        """Where the weights come from."""
        return self.intent.repository or self.checkpoint.repository or ""

    @property
    def count(self) -> int:
        """GPUs of this host that one replica uses."""
        return len(self.usable) // max(1, self.intent.replicas)

    @property
    def indices(self) -> list[int]:
        """Which GPUs of the host these are."""
        first = self.intent.replica * self.count
        return self.usable[first : first + self.count]

    @property
    def disk(self) -> Optional[HostDisk]:
        """The disk of the weights; None where nobody looked at one in that place."""
        known = self.intent.disk
        return known if known and known["hf_home"] == self.intent.hf_home else None

    @cached_property
    def cell(self) -> recipes.Cell:
        """What a recipe is looked up by."""
        return self.cell_of(self.version)

    @cached_property
    def layers(self) -> list[Layer]:
        """What the catalogue says of such cells in general."""
        return recipes.layers(self.known, self.cell)

    @cached_property
    def issues(self) -> list[KnownIssue]:
        """The known issues of such cells; arguments decide which of them apply."""
        return issues.of_cell(self.known, self.cell)

    def cell_of(self, version: str) -> recipes.Cell:
        """The cell as it is with another version of the engine."""
        return recipes.Cell(
            self.model, self.intent.precision, self.accelerator, self.count, self.intent.nodes, self.engine.name,
            version, self.intent.profile, self.intent.rdma or self._spans_hosts(),
        )  # fmt: skip

    def _spans_hosts(self) -> bool:
        """Whether the user asks for a tensor group that is wider than a host."""
        option = self.engine.options.tensor
        given = self.intent.engine_args if isinstance(self.intent.engine_args, Mapping) else {}
        widths = [str(value) for name, value in given.items() if flags.spelled(name) == option]
        return any(width.isdigit() and int(width) > self.count for width in widths)

    @cached_property
    def own_options(self) -> frozenset[str]:
        """Options whose values are the user's own: of glm_engine_args, and of a recipe of a team's catalogue."""
        recipe = recipes.published(self.known, self.cell)
        own = recipe.args if isinstance(recipe, OwnRecipe) else {}
        return frozenset(flags.spelled(name) for name in (*self.intent.engine_args, *own))

    @property
    def context_goal(self) -> int:
        """Most tokens of a request, as the profile wants it."""
        goal = self.known.profiles[self.intent.profile].context
        return min(goal or self.model.context_length, self.model.context_length)

    def obtainable(self, version: str) -> bool:
        """Whether this version can be had for the accelerator: an image, or on NVIDIA's also the package on PyPI.

        Where only an image is known for AMD, no package of that version is known to be built for ROCm either.
        """
        plain_package = self.intent.runtime == "venv" and self.accelerator.vendor == "nvidia"
        return plain_package or bool(self.images(version))

    def images(self, version: str) -> dict[str, Image]:
        """Published images of an engine version that run on this accelerator, the model's own before the engine's."""
        wants = self.model.engines[self.engine.name]
        own, general = wants.images.get(version, {}), self.engine.versions[version].images
        return {
            name: image
            for images in (own, general)
            for name, image in images.items()
            if self.suits(self.known.variants[name]) and not (images is general and name in own)
        }

    def refuse(self, why: str, next_step: str = "") -> NoReturn:
        """Raise the refusal, with what would work when no better step is known."""
        raise PlanError(f"{self.title}: {why}", next_step or self.alternatives() or "see docs/planner.md")

    def suits(self, variant: Variant) -> bool:
        """Whether what is built for this runs on the accelerator."""
        return variant.vendor == self.accelerator.vendor and (
            variant.architectures is None or self.accelerator.architecture in variant.architectures
        )

    @property
    def _oldest(self) -> tuple[str, str]:
        """The oldest version of the engine that serves the model and has kernels for its weights, and why that one."""
        wants = self.model.engines[self.engine.name]
        kernels = self.engine.formats.get(self.checkpoint.weights) or wants.min_version
        if versions.order(kernels) > versions.order(wants.min_version):
            return kernels, f"the first with kernels for {self.intent.precision}"
        return wants.min_version, wants.too_old

    def _version(self) -> str:
        engine, wants = self.engine, self.model.engines[self.engine.name]
        if not self.intent.engine_version:
            return self._default_version()
        version = self.intent.engine_version
        if not _RELEASE.fullmatch(version):
            raise PlanError(
                f"glm_engine_version is {version!r}, which is no release of {engine.name}: a plan is made for one "
                "release, because options differ between them",
                f"leave glm_engine_version empty, or set it to a number such as {engine.default_version}",
            )
        oldest, why = self._oldest
        if versions.order(version) < versions.order(oldest):
            because = f" ({why})" if why else ""
            raise PlanError(
                f"{engine.name} {version} cannot serve {self.model.name}: it needs {engine.name} "
                f"{oldest} or newer{because}",
                f"leave glm_engine_version empty, or set it to {max(wants.recommended, oldest, key=versions.order)}",
            )
        if version in engine.versions:
            return version
        order = sorted(engine.versions, key=versions.order)
        raise PlanError(
            f"unknown {engine.name} version {version!r}; the catalogue has no flag table of it",
            f"set glm_engine_version to one of {', '.join(order)}; or, if it is a release on PyPI, add it in a "
            f"checkout of the project with `make engine VERSION={engine.name}:{version}`, which makes its tables and "
            "prints its line of the catalogue",
        )

    def _default_version(self) -> str:
        """The engine's default, else what the model recommends, else the newest that can be had for the accelerator."""
        engine, wants = self.engine, self.model.engines[self.engine.name]
        lowest = max(versions.order(self._oldest[0]), self._recipe_since())
        oldest = sorted(engine.versions, key=versions.order)
        usual = [engine.default_version, wants.recommended]
        # A recipe that begins at a release was tried with that one rather than with the newest.
        for version in (*usual, *(oldest if self._recipe_since() else oldest[::-1])):
            if versions.order(version) >= lowest and self.obtainable(version):
                return version
        return engine.default_version

    def _recipe_since(self) -> tuple[int, ...]:
        """From which release on this cell's published recipe holds; empty when there is none or it always does."""
        cell = self.cell_of(self.engine.default_version)
        starts = [recipe.since for recipe in self.known.recipes if recipes.covers(recipe, cell)]
        return min((versions.order(since) if since else () for since in starts), default=())


def check(choice: Choice) -> None:
    """Refuse values that no catalogue entry is needed for to know that they cannot work."""
    intent = choice.intent
    if not 1 <= intent.accelerator_count <= MOST_GPUS:
        choice.refuse(f"{intent.accelerator_count} accelerators", "set glm_accelerator_count to what the host has")
    _check_gpus(choice)
    _check_extras(choice)
    if intent.replicas < 1 or len(choice.usable) % intent.replicas:
        choice.refuse(
            f"{len(choice.usable)} GPUs cannot be shared evenly by {intent.replicas} replicas",
            f"set glm_replicas to a divisor of {len(choice.usable)}",
        )
    if not 0 <= intent.replica < intent.replicas:
        choice.refuse(f"replica {intent.replica} of {intent.replicas}", "count replicas from 0")
    if intent.nodes < 1 or not 0 <= intent.node_rank < intent.nodes:
        choice.refuse(f"host {intent.node_rank} of {intent.nodes}", "set glm_nodes to the number of hosts of a replica")
    if intent.nodes > 1 and intent.replicas > 1:
        choice.refuse("a replica over several hosts takes all their GPUs", "set glm_replicas or glm_nodes to 1")
    if intent.accelerator_count > choice.accelerator.per_host and intent.nodes == 1:
        per_host = choice.accelerator.per_host
        hosts = -(-intent.accelerator_count // per_host)
        choice.refuse(
            f"a host has {per_host} {choice.accelerator.name}, and {intent.accelerator_count} are requested",
            f"set glm_accelerator_count to {per_host}, and glm_nodes to {hosts} for one replica over several hosts",
        )
    if intent.runtime not in RUNTIMES:
        choice.refuse(f"unknown runtime {intent.runtime!r}", f"set glm_runtime to {' or '.join(RUNTIMES)}")
    if intent.image and intent.runtime == "venv":
        choice.refuse("glm_image names an image, and glm_runtime is venv", "leave one of them out")
    _check_package(choice)
    _check_ports(choice)
    if intent.served_model_name is not None and not _SERVED_NAME.fullmatch(intent.served_model_name):
        choice.refuse(
            f"{intent.served_model_name!r} is not usable as a model name in requests",
            "set glm_served_model_name to letters, digits and . _ - / :",
        )
    paths = (("glm_data_dir", intent.data_dir), ("config_dir", intent.config_dir), ("engine_dir", intent.engine_dir))
    for variable, path in paths:
        if not path.startswith("/"):
            choice.refuse(f"{path!r} is not an absolute path on the host", f"set {variable} to one")
    _check_repository(choice)


def _check_gpus(choice: Choice) -> None:
    """The GPUs that are named are the host's, each once."""
    intent = choice.intent
    last = intent.accelerator_count - 1
    strange = [
        index
        for index in intent.gpus
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= last
    ]
    if strange or len(set(intent.gpus)) < len(intent.gpus):
        found = ", ".join(map(repr, intent.gpus))
        choice.refuse(
            f"glm_gpus: expected indices from 0 to {last}, each once, found {found}",
            "correct glm_gpus, or leave it empty",
        )
    if intent.gpus and intent.nodes > 1:
        choice.refuse(
            "a replica over several hosts takes all their GPUs", "leave glm_gpus empty, or set glm_nodes to 1"
        )


def _check_extras(choice: Choice) -> None:
    """Arguments, variables and mounts have the shapes that the plan reads; extras.py checks what they say."""
    intent = choice.intent
    for variable, value in (("glm_engine_args", intent.engine_args), ("glm_engine_env", intent.engine_env)):
        if not isinstance(value, Mapping):
            choice.refuse(f"{variable}: expected a mapping, found {type(value).__name__}", f"correct {variable}")
    mounts = intent.extra_mounts
    if not isinstance(mounts, (list, tuple)) or not all(isinstance(mount, Mapping) for mount in mounts):
        choice.refuse(
            f"glm_extra_mounts: expected a list of mappings with source and target, found {mounts!r}",
            "correct glm_extra_mounts, or leave it empty",
        )


def _check_ports(choice: Choice) -> None:
    """Door and engine of each replica have a port; no port is both."""
    intent = choice.intent
    for variable, port in (("glm_port", intent.listen_port), ("glm_engine_port", intent.engine_port)):
        if not 1 <= port <= 65535 - intent.replicas:
            choice.refuse(f"{port} is not a TCP port", f"set {variable} to a number from 1 to 65535")
    if abs(intent.listen_port - intent.engine_port) < intent.replicas:
        last = intent.replicas - 1
        choice.refuse(
            f"the ports of clients ({intent.listen_port} to {intent.listen_port + last}) and of engines"
            f" ({intent.engine_port} to {intent.engine_port + last}) overlap",
            "set glm_engine_port to a port that leaves room for all replicas",
        )


def _check_package(choice: Choice) -> None:
    """On bare metal the package must exist for the accelerator's vendor."""
    vendor, engine = choice.accelerator.vendor, choice.engine
    if choice.intent.runtime != "venv" or vendor == "nvidia":
        return
    if not engine.package.index_urls.get(vendor):
        choice.refuse(f"{engine.name} has no packages for {vendor.upper()} GPUs", "set glm_runtime to container")
    if not choice.obtainable(choice.version):
        known = [version for version in engine.versions if choice.obtainable(version)]
        choice.refuse(
            f"no package of {engine.name} {choice.version} for {vendor.upper()} GPUs is known",
            f"leave glm_engine_version empty or set it to one of {', '.join(known)}, or set glm_runtime to container",
        )


def _check_repository(choice: Choice) -> None:
    try:
        _require_repository(choice.repository, choice.checkpoint)
    except PlanError as error:
        choice.refuse(error.why, error.next_step)


def _precision(intent: Intent, model: Model) -> str:
    """The form of the weights: the one that was asked for, or the usual one. A file describes one form only."""
    if intent.precision and not intent.model_config:
        return intent.precision
    return USUAL_PRECISION if USUAL_PRECISION in model.precisions else next(iter(model.precisions))


def weights_repository(intent: Intent, known: Catalog) -> str:
    """Where the weights of an intent come from, whatever hardware it names. Raises PlanError."""
    if intent.repository:
        return _require_repository(intent.repository, None)
    model = _model(intent, known)
    named = _precision(intent, model)
    checkpoint = _look_up(named, model.precisions, f"precision of {intent.model}", "glm_precision")
    return _require_repository(checkpoint.repository or "", checkpoint)


def _require_repository(name: str, checkpoint: Optional[Checkpoint]) -> str:
    if not name and checkpoint is not None:
        also = f" (for example {checkpoint.alternatives[0]})" if checkpoint.alternatives else ""
        note = f": {checkpoint.note.rstrip('.')}" if checkpoint.note else ""
        raise PlanError(
            f"these weights have no official repository{note}",
            f"set glm_repository to the repository that holds yours{also}",
        )
    if not REPOSITORY.fullmatch(name):
        raise PlanError(f"{name!r} is not the name of a repository", "set glm_repository to owner/name")
    return name


def _model(intent: Intent, known: Catalog) -> Model:
    if intent.model_config:
        if intent.model in known.models:
            raise PlanError(
                f"glm_model_config describes a model the catalogue does not know, and it knows {intent.model}",
                "leave glm_model_config empty, or give the model a name of its own in glm_model",
            )
        try:
            return model_config.from_config(Path(intent.model_config), intent.model, known)
        except model_config.ModelConfigError as error:
            advice = "correct the file named in glm_model_config"
            raise PlanError(f"{intent.model}: {error}", advice) from error
    return _look_up(intent.model, known.models, "model", "glm_model")


def _accelerator(intent: Intent, known: Catalog) -> Accelerator:
    for entry in known.accelerators.values():
        if intent.accelerator in entry.aliases:
            return entry
    return _look_up(intent.accelerator, known.accelerators, "accelerator", "glm_accelerator")


def _look_up(name: str, known: Mapping[str, T], kind: str, variable: str) -> T:
    if name in known:
        return known[name]
    close = nearest(name, known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise PlanError(f"unknown {kind} {name!r}.{hint}", f"set {variable} to one the catalogue knows: {', '.join(known)}")

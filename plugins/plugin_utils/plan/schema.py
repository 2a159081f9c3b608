# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The serving plan: its shape, with the unit and the meaning of every field.

plan/make.py makes plans, everything else reads them through these types, so a key that is renamed here is an error of
mypy wherever it is written or read. The text below a field is its documentation: tools/json_schemas.py makes
docs/schemas/plan.schema.json and docs/plan.md of it.

SCHEMA grows with every change that a reader of an older one would not survive.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict, Union

SCHEMA: Final = 4

Bytes = Annotated[int, "bytes"]
Gib = Annotated[float, "GiB"]
Seconds = Annotated[int, "seconds"]
Tokens = Annotated[int, "tokens"]

Network = Literal["bridge", "host"]


class ContainerRuntime(TypedDict):
    """The engine runs in a Docker container."""

    kind: Literal["container"]
    """A container of the plan's image."""
    network: Network
    """Network of the container: the host's for a replica over several hosts."""
    path: None
    """Always null."""
    package: None
    """Always null."""
    python: None
    """Always null."""
    index_urls: list[str]
    """Always empty."""
    overrides: list[str]
    """Always empty."""


class VenvRuntime(TypedDict):
    """The engine runs on the host itself."""

    kind: Literal["venv"]
    """A virtual environment that the role engine_venv makes."""
    network: Literal["host"]
    """The host's."""
    path: str
    """Folder of the environment on the host."""
    package: str
    """The engine's requirement, such as vllm==0.32.0."""
    python: str
    """Version of Python, such as 3.12."""
    index_urls: list[str]
    """Further package indexes, such as AMD's."""
    overrides: list[str]
    """Requirements that win over the package's own, such as transformers==5.4.0."""


Runtime = Union[ContainerRuntime, VenvRuntime]


class Node(TypedDict):
    """This host's place among the hosts of one replica."""

    count: int
    """Hosts that serve one replica together."""
    rank: int
    """Which of them this one is, from 0. Only rank 0 has an endpoint."""
    head_address: str | None
    """Address of rank 0 as the others reach it; null where there is one host only, or it is not known yet."""
    addresses: list[str]
    """Addresses of all hosts of the replica, in the order of their ranks; empty for one host. Others are kept out."""
    interface: str | None
    """Network interface for NCCL and Gloo; null: the route to the head decides when the engine starts."""
    port: int
    """TCP port of the head at which the ranks meet; engines count upwards from it."""


class MeasuredHere(TypedDict):
    """What was measured with a recipe of your own catalogue."""

    date: str
    """When it was measured."""
    workload: str
    """What was sent, by name."""
    users: int
    """Requests under way at once."""
    engine_version: str
    """Version of the engine that was measured."""
    hardware: str
    """GPUs and driver as they were seen."""
    tokens_per_second: float
    """Tokens of answers, of all users together."""
    ttft_mean_ms: float | None
    """Milliseconds to the first token, on average; null where it was not measured."""
    same: bool
    """Whether this plan has the version and the arguments that were measured."""


Basis = Literal["published", "adapted", "own", "derived"]
Origin = Literal["recipe", "own", "catalogue", "known_issue", "yours", "disk", "plan"]
DiskClass = Literal["network", "local", "unknown"]


class Adapted(TypedDict):
    """An argument that is another one than was published for this cell."""

    argument: str
    """Its option, or its name in the environment."""
    reason: str
    """Who or what changed it, or why the plan does not take it."""


class Point(TypedDict):
    """The operating point that a recipe was published for."""

    name: str
    """What its publisher calls it."""
    least: int
    """Fewest requests at once that its publisher measures such points with, not on each hardware."""
    most: int
    """Most of them."""


class Recipe(TypedDict):
    """Where the arguments come from."""

    basis: Basis
    """Published for exactly this cell, published with arguments that the plan changed, a recipe for it of your own, or
    composed from the catalogue's layers."""
    adapted: list[Adapted]
    """The arguments that are others than were published, or than your own recipe has."""
    origins: dict[str, Origin]
    """Who says each argument, by its option: the published recipe, one of your own, the catalogue for all such models,
    the workaround of a known issue, your glm_engine_args, their disk (loading), or the plan itself. Without those about
    places, names, hosts and clocks, which are always the plan's."""
    measured: MeasuredHere | None
    """What was measured with these arguments, or with those that this plan changes; null where nothing was."""
    profile: str
    """What the arguments are tuned for, such as agentic."""
    users: int | None
    """Requests at once that the profile is for; null: any number."""
    point: Point | None
    """The operating point that the recipe was published for, where its publisher has several."""


class ModelServed(TypedDict):
    """The model and where its weights come from."""

    name: str
    """Name in the catalogue, such as GLM-5.1."""
    precision: str
    """Form of the weights, such as fp8."""
    repository: str
    """Repository on the model hub."""
    revision: str | None
    """Commit that the lock file has for the requested revision; null until it has one."""
    requested_revision: str
    """Branch, tag or commit that was asked for."""
    architecture: str
    """Class name in config.json, such as GlmMoeDsaForCausalLM."""
    model_type: str
    """model_type in config.json."""
    weights_bytes: Bytes
    """Size of the weights."""
    license: str
    """SPDX identifier of the weights' license."""
    context_length: Tokens
    """Longest request that the model was made for."""


class ExtraRepository(TypedDict):
    """A repository beside the model's, such as a draft model: fetched and locked like the weights."""

    repository: str
    """Repository on the model hub."""
    requested_revision: str
    """The branch, tag or commit that was asked for."""
    revision: str | None
    """Its commit by the lock file; null until that has one."""
    path: str
    """Where the engine sees its files."""
    bytes: Bytes | None
    """Size of its files; null until the lock file has it."""


class AcceleratorUsed(TypedDict):
    """The GPUs."""

    name: str
    """Name in the catalogue, such as B200."""
    count: int
    """GPUs of the host, whether this replica uses them all or not."""
    vendor: str
    """nvidia or amd."""
    architecture: str
    """Architecture, such as sm100 or gfx950."""
    memory_gib: Gib
    """Memory of one GPU."""
    indices: list[int]
    """Which GPUs of the host this replica uses, from 0."""


class EngineChosen(TypedDict):
    """The inference engine."""

    name: str
    """vllm or sglang."""
    version: str
    """Its release."""


class ImageBuild(TypedDict):
    """What is added to a published image that cannot serve the model as it comes."""

    base: str
    """The published image, repository:tag."""
    packages: list[str]
    """Requirements to add, such as transformers==5.4.0."""


class ImageChosen(TypedDict):
    """The engine's image. Once the lock file names a derived image, repository, tag and reference are its."""

    repository: str
    """Repository of the image, with its registry where that is not Docker Hub."""
    tag: str
    """Tag of the image."""
    digest: str | None
    """sha256:… that the lock file has for the tag; null until it has one, and for an image that each host builds."""
    variant: str
    """Name of the build in the catalogue, such as cu130; empty for an image of your own that names none."""
    cuda: str | None
    """CUDA that the image was built for; null for AMD, and where it is not known."""
    rocm: str | None
    """ROCm that the image was built for; null for NVIDIA, and where its release is not known."""
    min_driver: str | None
    """Oldest driver that works; null where none is published."""
    reference: str
    """What docker run is given: repository@digest, or repository:tag while there is no digest."""
    min_transformers: str
    """Oldest transformers that knows the model."""
    build: ImageBuild | None
    """What is added to the published image first; null where it serves the model as it comes."""


class Listen(TypedDict):
    """Where the endpoint is."""

    address: str
    """IP address of the host where clients reach the endpoint: the host's front door listens there."""
    port: int
    """TCP port of the door for this replica; each further replica of the host has the next one."""
    scheme: Literal["http", "https"]
    """What the door speaks."""
    engine_port: int
    """TCP port of 127.0.0.1 where the door reaches the engine; each further replica has the next one."""
    container_port: int
    """TCP port that the engine itself listens on, in its container where it has one."""


class DoorRoute(TypedDict):
    """A route that passes the front door."""

    path: str
    """Path on the engine and on the door; {name} stands for one segment, {name:path} for one or more."""
    methods: list[str]
    """HTTP methods that pass, such as POST."""
    purpose: str
    """What clients use it for: a name in catalog/routes.yml, such as chat."""


class Door(TypedDict):
    """What passes the front door; everything else is 404."""

    routes: list[DoorRoute]
    """What this version of the engine serves of what clients use."""
    lacking: list[str]
    """Purposes in catalog/routes.yml that this version does not serve."""
    shortfalls: list[str]
    """What this version does not have of the purposes it serves, such as JSON schema in Anthropic messages."""


class Acme(TypedDict):
    """How the host orders its certificate."""

    directory: str
    """URL of the authority's directory."""
    email: str
    """What the authority writes to about the account; empty for none."""
    address: str
    """Where the names should lead; empty when that is not known."""


class Tls(TypedDict):
    """Encryption of the endpoint."""

    origin: Literal["fleet", "own", "acme"]
    """Whose certificate it is: of the fleet's own authority, the user's, or one that the host orders."""
    names: list[str]
    """DNS names and IP addresses by which clients reach the host; URLs have the first."""
    acme: Acme | None
    """None where the host orders none."""


class EnvSecret(TypedDict):
    """An API key that the engine reads from its environment."""

    kind: Literal["env"]
    """The key is an environment variable."""
    name: str
    """Name of the variable."""
    container_path: str | None
    """Path of the file that a shell in the container reads it from; null on bare metal, where systemd does."""
    program: list[str]
    """What that shell becomes, with the command: the image's own entry point. Empty on bare metal."""


class ConfigSecret(TypedDict):
    """An API key that the engine reads from a YAML file."""

    kind: Literal["config"]
    """The key is an option of a configuration file."""
    option: str
    """Name of the option in the file."""
    admin_option: str | None
    """Name of the option for the host's admin key; null where this version of the engine has none."""
    container_path: str
    """Path of the file as the engine sees it."""


Secret = Union[EnvSecret, ConfigSecret]


class Confinement(TypedDict):
    """What the engine's container may do. It cannot gain privileges, and Docker's seccomp filter is on."""

    user: str
    """Number of the user it is inside the container; names are the image's affair."""
    capabilities: list[str]
    """Capabilities that the GPUs need; all others are dropped."""
    writable: list[str]
    """Folders of the container that are in memory; what is neither there nor a mount cannot be written."""
    processes: Annotated[int, "processes and threads"]
    """Most of them at a time."""
    shared_memory_gib: Gib
    """Limit of /dev/shm, which is the container's own."""
    imports: list[str]
    """Modules of the engine that the probe of the image loads under these limits."""


class Mount(TypedDict):
    """A folder of the host that the container sees."""

    source: str
    """Folder on the host."""
    target: str
    """Path in the container."""
    read_only: bool
    """Whether the engine may only read it."""


class Paths(TypedDict):
    """Folders on the host."""

    data: str
    """Everything large."""
    hf_home: str
    """HF_HOME of the weights, below data."""
    cache: str
    """Compiled kernels of this engine version and runtime, below data."""
    config: str
    """Environment and key files of the units."""
    engines: str
    """Virtual environments of engines."""


class Memory(TypedDict):
    """The arithmetic of one GPU's memory."""

    weights_per_gpu_gib: Gib
    """Weights on each GPU."""
    kv_bytes_per_token: Annotated[int, "bytes per token"]
    """KV cache that one token takes on each GPU."""
    kv_format: str
    """Format of the KV cache, such as fp8_packed."""
    static_fraction: float
    """Share of the GPU's memory for weights and KV cache together, from 0 to 1."""
    own_gib: Gib
    """What the engine keeps of each GPU for itself: activations, graphs, workspaces."""
    own_uncertainty_gib: Gib
    """By how much that may be off."""
    own_basis: Literal["estimated", "reported"]
    """Whether what the engine takes beside weights and KV cache is estimated, or what starts of this fleet reported."""
    starts: int
    """How many hosts' starts that are."""
    configuration: str | None
    """What starts are kept under, beside the lock file; null where glm_engine_args set the size of the KV cache."""
    margin_gib: Gib
    """What of each GPU no request is promised: 2 GiB, 5 % of the KV cache or the uncertainty, whichever is most."""
    spare_gib: Gib
    """What is left of each GPU beside the longest request and what the engine needs; negative where it may not do."""
    kv_pool_gib_per_gpu: Gib
    """KV cache on each GPU."""
    token_pool: Tokens
    """What the KV cache of the whole replica holds."""
    full_length_requests: Annotated[float, "requests"]
    """How many requests of the model's whole context length that is."""
    fits: bool
    """Always true: what does not fit is refused."""
    arithmetic: str
    """All of this as a sentence."""


class Promises(TypedDict):
    """What the engine must say of itself once it serves. verify compares; the reasons are in docs/verify.md."""

    token_pool: Tokens | None
    """Least room of the KV cache of the whole replica; null where glm_engine_args set it in another unit."""
    draft_tokens: Tokens
    """How many tokens the engine drafts at a time; 0 without speculative decoding."""
    acceptance_length: Annotated[float, "tokens of one step"] | None
    """Least tokens of one step, the accepted drafts and one more; null unless the drafts are of the MTP layer."""


class Parallel(TypedDict):
    """How the GPUs of the replica are divided; 1 means not at all."""

    tensor: int
    """GPUs of one tensor group."""
    pipeline: int
    """Pipeline stages."""
    data: int
    """Data-parallel ranks."""
    expert: int
    """GPUs that whole experts are spread over."""


class Phases(TypedDict):
    """How long each part of a start may take."""

    load: Seconds
    """Reading the weights."""
    compile: Seconds
    """Compiling kernels."""
    capture: Seconds
    """Capturing graphs."""
    warmup: Seconds
    """First requests."""


class Timeouts(TypedDict):
    """Limits of the systemd unit."""

    start_seconds: Seconds
    """Until the endpoint must answer: all phases and a margin."""
    longest_answer_seconds: Seconds
    """How long the longest answer may take: the whole context, at the pace that the plan takes for the slowest."""
    drain_seconds: Seconds
    """How long requests that run have at a stop: the longest answer, within a bound, or glm_drain_seconds."""
    stop_seconds: Seconds
    """When an engine that was asked to stop is killed: its drain, and what it needs to end."""
    phases: Phases
    """What start_seconds is made of."""


class Stop(TypedDict):
    """How the engine ends."""

    success_exit_status: list[str]
    """Exit statuses and signals that count as a clean end besides 0."""
    drains: bool
    """Whether this version lets requests that run end when it is asked to stop."""


class Sampling(TypedDict):
    """Parameters that the model's makers recommend for one kind of work."""

    temperature: float
    """Temperature."""
    thinking: str
    """Mode of thinking: on, off or preserved."""
    top_p: NotRequired[float]
    """Nucleus sampling."""
    max_new_tokens: NotRequired[Tokens]
    """Longest answer."""
    context_length: NotRequired[Tokens]
    """Longest request and answer together."""


class Contract(TypedDict):
    """What the endpoint promises its users."""

    reasoning_field: str
    """Field of a message that holds the reasoning: reasoning or reasoning_content."""
    tool_parser: str | None
    """The engine's parser of tool calls; null where it has none."""
    reasoning_parser: str | None
    """The engine's parser of reasoning; null where it has none."""
    thinking_default: bool
    """Whether the model thinks when a request says nothing about it."""
    thinking_on: dict[str, Any]
    """What a request body adds to turn interleaved thinking on."""
    thinking_off: dict[str, Any] | None
    """What a request body adds to turn thinking off; null where that is not possible."""
    thinking_preserved: dict[str, Any] | None
    """What a request body adds to keep the thinking of earlier turns; null where that is not possible."""
    reasoning_efforts: list[str]
    """Levels that reasoning_effort takes, the default last."""
    sampling: dict[str, Sampling]
    """Recommended sampling by kind of work; the entry default is for everything else."""
    health_path: str
    """Path that answers 200 while the engine is well."""
    alive_path: str
    """Path that answers 200 at once while the engine takes requests, however busy it is."""
    context_length: Tokens | None
    """Longest request that is served; null where the engine finds out by itself."""


class Disk(TypedDict):
    """Room that a host needs."""

    weights_bytes: Bytes
    """Size of the weights."""
    image_bytes: Bytes
    """Size of the image, or of the virtual environment."""
    free_bytes_needed: Bytes
    """What must be free before the first fetch."""


class Loading(TypedDict):
    """How the engine loads the weights from their disk, which changes nothing that is served."""

    disk: DiskClass
    """What the loader was chosen for; unknown until a deploy kept what the disk is."""
    filesystem: str | None
    """File system of the weights, such as ext4 or virtiofs; null where it is not known."""
    kind: str | None
    """Kind of disk: network, nvme, volume, block or memory; null where it is not known."""
    read_mb_s: float | None
    """MB/s that were read from it in one stream, past the page cache; null where nobody measured."""
    measured_at: str | None
    """When, in UTC."""
    options: list[str]
    """Options that were added for it; empty where the engine's own way is right, or nothing is known."""
    reason: str
    """Why these, or none."""
    source: str | None
    """Where it was measured, or the engine's own line."""


class HostMemory(TypedDict):
    """Memory of the host that a replica takes. The host's checks compare the sum of its replicas with what it has."""

    shared_memory_gib: Gib
    """Limit of /dev/shm, which fills as the engine uses it."""
    processes_gib: Gib
    """Processes of the engine with their pinned buffers."""
    offloaded_gib: Gib
    """Weights and KV cache that glm_engine_args moves to the host."""
    needed_gib: Gib
    """All of these."""


class Price(TypedDict):
    """What a provider charges for a whole host like this."""

    provider: str
    """Name of the provider."""
    usd_per_hour: Annotated[float, "US dollars per hour"]
    """For one host."""
    date: str
    """Day the price was read, as YYYY-MM-DD; empty when that is not known."""


class IssueMet(TypedDict):
    """A known issue that this plan meets. What is broken is refused, so each has a workaround in the plan."""

    id: str
    """Its name in the catalogue."""
    status: str
    """What the catalogue says of it, such as workaround."""
    text: str
    """What happens, and what the plan does against it."""
    link: str
    """Where it is reported."""


class Plan(TypedDict):
    """How one replica of a model is served on one host, to the last argument. Never holds a secret.

    A host has as many plans as replicas: the fact glm_plans is the list of them, in order.
    """

    schema: Literal[4]
    """Version of this schema."""
    replica: int
    """Which replica of the host this is, from 0: its unit is glm-serve-N.service with that number."""
    replicas: int
    """Replicas on the host; each has its own plan, GPUs and port."""
    runtime: Runtime
    """What runs the engine; kind says which of the two."""
    node: Node
    recipe: Recipe
    model: ModelServed
    extra_repositories: list[ExtraRepository]
    accelerator: AcceleratorUsed
    engine: EngineChosen
    profile: str
    """What the plan is tuned for, such as agentic."""
    image: ImageChosen | None
    """The engine's image; null where the engine runs in a virtual environment."""
    served_model_name: str
    """Name of the model in requests."""
    listen: Listen
    door: Door
    tls: Tls | None
    """Encryption of the endpoint; null for plain HTTP."""
    command: list[str]
    """Arguments after the image (vLLM's entry point is vllm serve), or the whole command in a virtual environment."""
    env: dict[str, str]
    """Environment of the engine."""
    secret: Secret
    """Where the engine reads its API key; the key itself is in no plan."""
    devices: list[str]
    """CDI names of what a container gets: nvidia.com/gpu=all, or those of its own GPUs where replicas share a host."""
    device_nodes: list[str]
    """ROCm: device files that a container gets."""
    device_groups: list[str]
    """ROCm: groups that own these files; their numbers are read on the host."""
    confinement: Confinement | None
    """What the container may do; null in a virtual environment, whose unit confines the engine."""
    mounts: list[Mount]
    """What the container sees of the host; empty in a virtual environment."""
    paths: Paths
    memory: Memory
    promises: Promises
    parallel: Parallel
    timeouts: Timeouts
    stop: Stop
    contract: Contract
    disk: Disk
    loading: Loading
    host_memory: HostMemory
    prices: list[Price]
    """Known prices of such a host; empty when none is known."""
    known_issues: list[IssueMet]
    sources: list[str]
    """Where the knowledge is from."""
    notes: list[str]
    """What a reader should know before the start."""

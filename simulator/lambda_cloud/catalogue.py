"""What the simulated provider rents: regions, instance types with prices and capacity, and images.

Names and prices of the types that the mission's documents and third-party lists agree on are real (cents per hour
for the whole instance); prices marked "assumed" and all capacities are this simulator's. Nothing here may be read
as an offer: clients must ask ``GET /instance-types``.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.lambda_cloud.backend import AcceleratorSpec, InstanceTypeSpec
from simulator.lambda_cloud.types import Json

REHEARSAL_LABEL = "[rehearsal only, not in the provider's catalogue]"
IMAGE_CREATED = "2026-09-01T00:00:00+00:00"
ARCHITECTURES = ("x86_64", "arm64")

REGIONS = {
    "us-east-1": "Virginia, USA",
    "us-east-2": "Washington DC, USA",
    "us-east-3": "Washington DC, USA",
    "us-west-1": "California, USA",
    "us-west-2": "Arizona, USA",
    "us-west-3": "Utah, USA",
    "us-south-1": "Texas, USA",
    "us-south-2": "North Texas, USA",
    "us-south-3": "Central Texas, USA",
    "us-midwest-1": "Illinois, USA",
    "us-midwest-2": "Illinois, USA",
    "us-southeast-1": "Georgia, USA",
    "europe-central-1": "Germany",
    "europe-south-1": "Italy",
    "me-west-1": "Israel",
    "asia-south-1": "India",
    "asia-northeast-1": "Osaka, Japan",
    "asia-northeast-2": "Tokyo, Japan",
    "australia-east-1": "Sydney, Australia",
}

IMAGE_FAMILIES = {
    "lambda-stack-24-04": ("Lambda Stack 24.04", "24.4.4"),
    "lambda-stack-22-04": ("Lambda Stack 22.04", "22.4.4"),
    "gpu-base-24-04": ("GPU Base 24.04", "24.4.4-2141"),
    "ubuntu-lts": ("Ubuntu LTS", "24.4.4"),
}
DEFAULT_FAMILY = "lambda-stack-24-04"
# Seen in use: the default image is an older one in some regions, so a careful client always names the family.
DEFAULT_FAMILY_OF = {"us-east-1": "lambda-stack-22-04"}

_ACCELERATOR = re.compile(r"(?:Tesla )?(?P<name>.+?) \((?P<memory>\d+) GB\b")


@dataclass(frozen=True)
class InstanceType:
    """A rentable shape. ``capacity`` maps region to free instances; None is without limit, absent is none."""

    name: str
    gpu_description: str
    price_cents_per_hour: int
    gpus: int
    vcpus: int
    memory_gib: int
    storage_gib: int
    architecture: str = "x86_64"
    label: str = ""
    capacity: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The count and accelerator, e.g. ``8x B200 (180 GB SXM6)``, then the label if there is one."""
        text = f"{self.gpus}x {self.gpu_description}" if self.gpus else f"{self.vcpus}x CPU"
        return f"{text} {self.label}".strip()

    def view(self) -> Json:
        """The API's InstanceType schema."""
        return {
            "name": self.name,
            "description": self.description,
            "gpu_description": self.gpu_description,
            "price_cents_per_hour": self.price_cents_per_hour,
            "specs": {
                "vcpus": self.vcpus,
                "memory_gib": self.memory_gib,
                "storage_gib": self.storage_gib,
                "gpus": self.gpus,
            },
        }

    def spec(self) -> InstanceTypeSpec:
        """What a backend gets, with the accelerator read out of the description as a client would."""
        match = _ACCELERATOR.match(self.gpu_description)
        accelerator = AcceleratorSpec(match["name"], self.gpus, int(match["memory"])) if match and self.gpus else None
        return InstanceTypeSpec(
            name=self.name,
            gpus=self.gpus,
            accelerator=accelerator,
            vcpus=self.vcpus,
            memory_gib=self.memory_gib,
            storage_gib=self.storage_gib,
            architecture=self.architecture,
        )


def _type(
    name: str,
    gpu: str,
    cents: int,
    shape: tuple[int, int, int, int],
    regions: Mapping[str, int | None],
    architecture: str = "x86_64",
) -> InstanceType:
    gpus, vcpus, memory, storage = shape
    return InstanceType(name, gpu, cents, gpus, vcpus, memory, storage, architecture, capacity=dict(regions))


_MANY = {"us-east-1": None, "us-west-1": None, "us-south-1": None}
_LARGE = {"us-east-1": 16, "us-west-1": 16, "us-south-2": 16}

DEFAULT_TYPES = (
    _type("gpu_1x_a10", "A10 (24 GB PCIe)", 75, (1, 30, 200, 1400), _MANY),  # assumed price
    _type("gpu_1x_rtx6000", "RTX 6000 (24 GB)", 50, (1, 14, 46, 512), _MANY),  # assumed price
    _type("gpu_1x_a6000", "A6000 (48 GB)", 80, (1, 14, 100, 200), {"us-west-1": 4}),  # assumed price
    _type("gpu_2x_a6000", "A6000 (48 GB)", 160, (2, 28, 200, 1024), {}),  # assumed price
    _type("gpu_4x_a6000", "A6000 (48 GB)", 320, (4, 56, 400, 1024), {}),  # assumed price
    _type("gpu_1x_a100", "A100 (40 GB PCIe)", 129, (1, 30, 200, 512), _MANY),  # assumed price
    _type("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 129, (1, 30, 200, 512), _MANY),  # assumed price
    _type("gpu_8x_a100", "A100 (40 GB SXM4)", 1032, (8, 124, 1800, 6144), _LARGE),  # assumed price
    _type("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 2232, (8, 240, 1800, 20480), _LARGE),
    _type("gpu_1x_h100_pcie", "H100 (80 GB PCIe)", 329, (1, 26, 200, 1024), _MANY),
    _type("gpu_1x_h100_sxm5", "H100 (80 GB SXM5)", 429, (1, 26, 225, 2816), _MANY),
    _type("gpu_2x_h100_sxm5", "H100 (80 GB SXM5)", 838, (2, 52, 450, 5632), _LARGE),  # assumed price
    _type("gpu_4x_h100_sxm5", "H100 (80 GB SXM5)", 1636, (4, 104, 900, 11264), _LARGE),  # assumed price
    _type("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 3192, (8, 208, 1800, 22528), _LARGE),
    _type("gpu_1x_gh200", "GH200 (96 GB)", 229, (1, 64, 432, 4096), {"us-east-3": 8}, "arm64"),
    _type("gpu_1x_b200_sxm6", "B200 (180 GB SXM6)", 699, (1, 26, 360, 2816), _LARGE),  # assumed price
    _type("gpu_2x_b200_sxm6", "B200 (180 GB SXM6)", 1378, (2, 52, 720, 5632), _LARGE),  # assumed price
    _type("gpu_4x_b200_sxm6", "B200 (180 GB SXM6)", 2716, (4, 104, 1440, 11264), _LARGE),  # assumed price
    _type("gpu_8x_b200_sxm6", "B200 (180 GB SXM6)", 5352, (8, 208, 2900, 22528), _LARGE),
    _type("gpu_8x_v100", "Tesla V100 (16 GB)", 440, (8, 88, 448, 5939), {"us-south-1": 2}),  # assumed price
    _type("cpu_4x_general", "N/A", 8, (0, 4, 16, 128), {"us-east-1": None}),  # assumed price
)


def rehearsal_type(entry: Mapping[str, Any]) -> InstanceType:
    """Make an instance type from a configuration entry; its description is labelled as not real.

    Raises ValueError naming the entry and the key that is missing, unknown or of the wrong kind.
    """
    name = str(entry.get("name", "(no name)"))
    wanted: dict[str, type] = {
        "name": str,
        "gpu_description": str,
        "price_cents_per_hour": int,
        "gpus": int,
        "vcpus": int,
        "memory_gib": int,
        "storage_gib": int,
    }
    unknown = set(entry) - set(wanted) - {"architecture", "capacity"}
    if unknown:
        raise ValueError(f"instance type {name}: unknown key(s) {', '.join(sorted(unknown))}")
    for key, kind in wanted.items():
        value = entry.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"instance type {name}: {key} must be a {kind.__name__}, found {value!r}")
    architecture = entry.get("architecture", "x86_64")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"instance type {name}: architecture must be one of {known}, found {architecture!r}")
    return InstanceType(
        **{key: entry[key] for key in wanted},
        architecture=architecture,
        label=REHEARSAL_LABEL,
        capacity=check_capacity(name, entry.get("capacity", {})),
    )


def check_capacity(name: str, capacity: Any) -> dict[str, int | None]:
    """Return ``capacity`` (region to count or None) or raise ValueError naming the bad region or count."""
    if not isinstance(capacity, Mapping):
        raise ValueError(f"capacity of {name}: expected a mapping of region to count, found {capacity!r}")
    for region, count in capacity.items():
        if region not in REGIONS:
            raise ValueError(f"capacity of {name}: unknown region {region!r}")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise ValueError(f"capacity of {name} in {region}: expected a count or null, found {count!r}")
    return dict(capacity)


def region_view(name: str) -> Json:
    """The API's Region schema."""
    return {"name": name, "description": REGIONS[name]}


@functools.cache
def images() -> list[Json]:
    """One row per family, region and architecture, as ``GET /images`` gives them; ids never change."""
    rows: list[Json] = []
    for family, (title, version) in IMAGE_FAMILIES.items():
        for region in REGIONS:
            for architecture in ARCHITECTURES:
                rows.append(
                    {
                        "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{family}.{region}.{architecture}")),
                        "created_time": IMAGE_CREATED,
                        "updated_time": IMAGE_CREATED,
                        "name": title,
                        "description": f"{title} for {architecture}",
                        "family": family,
                        "version": version,
                        "architecture": architecture,
                        "region": region_view(region),
                    }
                )
    return rows


def default_family(region: str) -> str:
    """The family that a launch without ``image`` gets; it differs between regions."""
    return DEFAULT_FAMILY_OF.get(region, DEFAULT_FAMILY)

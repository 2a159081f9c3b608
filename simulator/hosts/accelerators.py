"""What a rehearsal host declares about accelerators that it does not have."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

DRIVER_VERSION = "580.105.08"
CUDA_VERSION = "13.0"


@dataclass(frozen=True)
class Product:
    """An accelerator as its driver names it. ``fabric`` is the NVLink fabric's state, empty where there is none."""

    name: str
    memory_mib: int
    pci_device_id: str
    fabric: str = "Completed"


# Memory as nvidia-smi prints it on the real product; PCI device ids as in the public PCI id list.
PRODUCTS = {
    "B200": Product("NVIDIA B200", 183359, "0x2901"),
    "H200": Product("NVIDIA H200", 143771, "0x2335"),
    "H100": Product("NVIDIA H100 80GB HBM3", 81559, "0x2330"),
    "GH200": Product("NVIDIA GH200 480GB", 97871, "0x2342", fabric=""),
    "A100": Product("NVIDIA A100-SXM4-80GB", 81920, "0x20B2", fabric=""),
    "A10": Product("NVIDIA A10", 23028, "0x2236", fabric=""),
}


@dataclass(frozen=True)
class Declaration:
    """The content of /etc/glm-rehearsal/accelerator.json on a host."""

    name: str
    count: int
    memory_mib: int
    pci_device_id: str
    fabric: str
    driver_version: str = DRIVER_VERSION
    cuda_version: str = CUDA_VERSION

    def to_json(self) -> str:
        """One key per line: the stand-in nvidia-smi reads it line by line."""
        return json.dumps({"rehearsal_stand_in": True, **asdict(self)}, indent=1) + "\n"


def declare(name: str, count: int, memory_gb: int) -> Declaration:
    """Declare ``count`` accelerators; ``memory_gb`` (advertised, decimal) is used for products not in the table."""
    product = PRODUCTS.get(name.upper())
    if product is None or abs(product.memory_mib * 2**20 / 1e9 - memory_gb) > 0.25 * memory_gb:
        product = Product(f"NVIDIA {name}", int(memory_gb * 1e9 / 2**20), "0x2330", fabric="")
    return Declaration(product.name, count, product.memory_mib, product.pci_device_id, product.fabric)

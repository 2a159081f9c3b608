"""What the engines' own loaders do with a file on the disk, and that they take what plans choose for a disk.

A file on a network is not needed for it: what a loader has read is in the page cache afterwards, and what it has only
mapped is not.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from simulator.engines import trees
from simulator.settings import Settings
from tests.engines import cpu_start
from tests.engines.live_engine import on_network_disk
from tests.engines.test_planned_commands import versions, with_secret

CATALOG = catalog.load()
# Of a file that was read whole, some pages may be gone again where other tests need the memory.
READ_WHOLE = 0.9
FILESYSTEMS = ("nfs", "nfs4", "lustre", "virtiofs", "ceph", "cifs")

# Prints, for each way to load, what share of the file was in the page cache when all tensors had been handed out.
PROGRAM = """
import ctypes, json, mmap, os, sys, time
import numpy
import torch
from safetensors.torch import save_file

path = sys.argv[1]
# Larger than what the kernel reads ahead where a mapped tensor is touched first.
wanted = {f"w{n}": torch.full((64_000_000,), n + 1, dtype=torch.bfloat16) for n in range(2)}
save_file(wanted, path)
size = os.path.getsize(path)
libc = ctypes.CDLL(None, use_errno=True)


def drop():
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def cached():
    with open(path, "rb") as file:
        area = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    address = numpy.frombuffer(area, dtype=numpy.uint8).ctypes.data
    assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
    return sum(page & 1 for page in pages) / len(pages)


def share(load, wait=0.0):
    drop()
    assert cached() < 0.01, "the file cannot be taken out of the page cache"
    found = dict(load())
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and cached() < 1:
        time.sleep(0.05)
    seen = cached()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    return seen


"""
VLLM = """
from vllm.model_executor.model_loader import weight_utils as w

result = {
    "default": share(lambda: w.safetensors_weights_iterator([path], False, None)),
    "threads": share(lambda: w.multi_thread_safetensors_weights_iterator([path], False, max_workers=8)),
    "prefetch": share(lambda: w.safetensors_weights_iterator([path], False, "prefetch"), wait=60.0),
    "eager": share(lambda: w.safetensors_weights_iterator([path], False, "eager")),
}
print("SHARES " + json.dumps(result))
"""
SGLANG = """
from sglang.srt.model_loader import weight_utils as w

result = {
    "threads": share(lambda: w.buffered_multi_thread_safetensors_weights_iterator([path], max_workers=8)),
    "whole": share(lambda: w.safetensors_weights_iterator([path], disable_mmap=True)),
}
print("SHARES " + json.dumps(result))
"""


def shares(engine: str, program: str, folder: Path) -> dict[str, float]:
    tree = trees.build_tree(Settings.from_environment().cache_dir, engine)
    done = subprocess.run(
        [cpu_start.python(), "-c", PROGRAM + program, str(folder / "model.safetensors")],
        env=cpu_start.environment(folder, tree), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "cannot be taken out of the page cache" in done.stderr:
        pytest.skip(f"the file system of {folder} keeps files in memory")
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("SHARES ")]
    found: dict[str, float] = json.loads(line.removeprefix("SHARES "))
    print(f"{engine}: {found}")
    return found


def test_threads_of_vllm_map_files_and_prefetch_reads_them(tmp_path: Path) -> None:
    found = shares("vllm", VLLM, tmp_path)
    assert found["default"] < 0.5 and found["threads"] < 0.5
    assert min(found["prefetch"], found["eager"]) > READ_WHOLE


def test_threads_of_sglang_map_files_which_are_read_without_mmap(tmp_path: Path) -> None:
    found = shares("sglang", SGLANG, tmp_path)
    assert found["threads"] < 0.5
    assert found["whole"] > READ_WHOLE


@pytest.mark.parametrize(
    ("engine", "version"), [(engine, version) for engine in CATALOG.engines for version in versions(engine)]
)
def test_the_parser_takes_what_was_chosen_for_the_disk(engine_parse, tmp_path, engine, version) -> None:
    for filesystem in FILESYSTEMS:
        made = on_network_disk(engine, version, filesystem)
        found = engine_parse(engine, version, with_secret(made["command"], tmp_path))
        assert found.ok, (filesystem, found.message)
        rules = CATALOG.engines[engine].loading.rules
        wanted: dict[str, Any] = next(
            (rule.args for rule in rules if rule.source == made["loading"]["source"] and rule.holds(version)), {}
        )
        for name, value in wanted.items():
            read = found.namespace[name.replace("-", "_")]
            assert read in (value, json.dumps(value)), (filesystem, name)

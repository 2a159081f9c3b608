"""Print as JSON what an engine's environment has: its version, whether it knows the model, how many GPUs torch sees."""

import importlib.metadata
import json
import sys
from typing import Any

package, model_type = sys.argv[1:]
problems: list[str] = []
found: dict[str, Any] = {"version": None, "gpus": None, "knows_the_model": None, "problems": problems}
try:
    found["version"] = importlib.metadata.version(package)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # type: ignore[import-not-found,unused-ignore]  # the engine's

    found["knows_the_model"] = model_type in CONFIG_MAPPING_NAMES
    import torch  # type: ignore[import-not-found,unused-ignore]  # the engine's

    found["gpus"] = torch.cuda.device_count()
except Exception as exc:  # whatever a broken environment raises is what a person needs to read
    problems.append(f"{type(exc).__name__}: {exc}")
print(json.dumps(found))

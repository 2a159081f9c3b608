"""A bare HTTP client for the simulator's tests: no retries, no pacing, nothing that could hide a fault."""

from __future__ import annotations

from typing import Any

import requests
from lambda_cloud_schemas import ERROR, check

from simulator.lambda_cloud.server import Handle
from tests.patience import PATIENCE_SECONDS

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cy1mcW0pdhL2lKq1zK0Zp0cB1b5vTq3o9mQGg0lq1 fleet@example"
TYPE = "gpu_8x_b200_sxm6"
REGION = "us-east-1"


class Client:
    """Calls the API of one running simulator with its key."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {handle.api_key}"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", PATIENCE_SECONDS)
        return self.session.request(method, self.handle.api_url + path, **options)

    def data(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.call(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()["data"]

    def error(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str, str]:
        """Status, code and message of a call that must be refused with a well-formed envelope."""
        answer = self.call(method, path, json=body, **options)
        assert answer.status_code >= 400, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        check(ERROR, answer.json())
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["message"]

    def add_key(self, name: str = "fleet") -> str:
        return str(self.data("POST", "/ssh-keys", {"name": name, "public_key": PUBLIC_KEY})["id"])

    def add_file_system(self, name: str = "weights", region: str = REGION) -> str:
        return str(self.data("POST", "/filesystems", {"name": name, "region": region})["id"])

    def launch_body(self, **changes: Any) -> dict[str, Any]:
        body = {"region_name": REGION, "instance_type_name": TYPE, "ssh_key_names": ["fleet"], **changes}
        return {key: value for key, value in body.items() if value is not None}

    def launch(self, **changes: Any) -> str:
        data = self.data("POST", "/instance-operations/launch", self.launch_body(**changes))
        return str(data["instance_ids"][0])

    def get(self, instance_id: str) -> Any:
        return self.data("GET", f"/instances/{instance_id}")

    def wait_active(self, instance_id: str) -> Any:
        for _ in range(20):
            view = self.get(instance_id)
            if view["status"] == "active":
                return view
        raise AssertionError(f"not active after 20 reads: {view}")

    def terminate(self, *ids: str) -> Any:
        return self.data("POST", "/instance-operations/terminate", {"instance_ids": list(ids)})

#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a served endpoint from its own host with the engine's benchmark client."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_run
short_description: Measure an endpoint with the engine's own client
version_added: 0.1.0
description:
  - Runs C(vllm bench serve) against the endpoint of a serving plan - one run to warm up, then O(repeats) runs of every
    point of a workload - and samples the engine's metrics and the GPUs meanwhile.
  - The client's result decides and not its exit status, which is 0 also when every request failed. A run in which a
    request failed, or an answer ended early, is not a measurement. It fails the task with the first error and cause.
  - The runs continue on the host without the controller, which checks them every O(poll) seconds and prints a line.
    After an interrupted call, the next one follows them again.
  - Has an action plugin of the same name, which knows the workloads, follows the runs and stores the result on the
    controller.
options:
  plan:
    description: The serving plan of the replica to measure.
    type: dict
    required: true
  workload:
    description: Name of the workload, in the catalogue or in O(workloads).
    type: str
    required: true
  workloads:
    description: Your own workloads by name, in the form of C(catalog/workloads.yml).
    type: dict
    default: {}
  catalog:
    description: Folders on the controller with your own catalogue, whose workloads may be named, too.
    type: list
    elements: path
    default: []
  keep:
    description: Whether the result is to be kept as a recipe in O(catalog). Refuses at once what could not be.
    type: bool
    default: false
  scale:
    description: Share of the workload's tokens, prompts and parallel requests to send. Less than 1 is a rehearsal.
    type: float
    default: 1.0
  repeats:
    description: How often each point is measured. The report shows how far repeats lie apart.
    type: int
    default: 1
  warmup:
    description: Maximum number of requests of the warm-up run, whose figures are discarded. V(0) skips the run.
    type: int
    default: 32
  seed:
    description:
      - Seed of the first run's prompts; each further run takes the next number, so that none finds the prompts of
        another in the prefix cache. By default the time.
    type: int
  client_image:
    description: Image with vLLM's client, for engines that have none of their own. It must be on the host.
    type: str
    default: ""
  client_path:
    description: A C(vllm) program on the host to measure with, instead of a container.
    type: str
    default: ""
  client_host:
    description:
      - Name of the host that the task is delegated to, where the client does not run on the host that serves. Its GPUs
        are not read, and the endpoint is reached at O(address).
    type: str
    default: ""
  tls_ca:
    description: File on the controller with the authorities, as PEM, that the client trusts. By default its machine's.
    type: path
  address:
    description:
      - Where the client reaches the endpoint. By default the plan's own address, and with O(client_host) the one that
        Ansible reaches the host at, if the plan listens on all of them.
    type: str
    default: ""
  monitor_address:
    description:
      - Address at which the host that serves shows metrics of its engines, for a client on another host. On loopback it
        reaches none, and the record has none.
    type: str
    default: 127.0.0.1
  monitor_port:
    description: Its port.
    type: int
    default: 9800
  tokenizer:
    description: Folder with the model's tokenizer where the client runs. By default the snapshot of the weights.
    type: path
  gpus:
    description: The GPUs that serve, as C(gpu_facts) describes them, for the record of a client that cannot see them.
    type: dict
    default: {}
  api_key:
    description: The endpoint's key.
    type: str
  quality:
    description: What M(glm.fleet.endpoint_check) found. It becomes part of the record; a failed check fails the task.
    type: list
    elements: dict
    default: []
  strict:
    description:
      - Whether a run that is not a measurement, or a failed check of O(quality), fails the task. Otherwise RV(ok) says
        so, and M(glm.fleet.benchmark_report) fails with the reason after it made the report.
    type: bool
    default: true
  run_timeout:
    description: Seconds that one run of the client may take.
    type: int
    default: 14400
  sample_seconds:
    description: Seconds between two samples of the engine's metrics and the GPUs.
    type: float
    default: 5.0
  poll:
    description: Seconds between two lines of progress.
    type: int
    default: 15
  folder:
    description:
      - Folder on the host for the client's results and logs. By default one in C(benchmarks) in the plan's data folder.
    type: path
  state_dir:
    description: Folder on the controller. The record goes to C(benchmarks) in it.
    type: path
    required: true
  phase:
    description: What part of the work to do. Set by the action plugin.
    type: str
    choices: [start, status]
    default: start
  job:
    description: What to run. Set by the action plugin.
    type: dict
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Nothing is measured and the task is skipped.
  diff_mode:
    support: none
    details: It changes nothing that has a diff.
  idempotent:
    support: none
    details: It measures again.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Measure the endpoint as Lambda did
  glm.fleet.benchmark_run:
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    workload: glm51_agentic
    repeats: 3
    api_key: "{{ lookup('glm.fleet.api_key', '~/.local/state/glm-fleet/default/api_key') }}"
    state_dir: ~/.local/state/glm-fleet/default

- name: Measure your own workload
  glm.fleet.benchmark_run:
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    workload: support_chat
    workloads:
      support_chat:
        text: Short questions, short answers.
        interface: chat
        input_tokens: 600
        output_tokens: 200
        points:
          - {prompts: 200, parallel: 20}
        source: {who: our own traffic of October}
    state_dir: ~/.local/state/glm-fleet/default

- name: Measure from another host, so that the client takes nothing from the engine
  glm.fleet.benchmark_run:
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    workload: concurrency_sweep
    client_host: bench-1
    client_path: /opt/bench/bin/vllm
    tokenizer: /var/lib/glm/benchmarks/tokenizer
    gpus: "{{ ansible_facts['gpu_facts'] }}"
    state_dir: ~/.local/state/glm-fleet/default
  delegate_to: bench-1
"""

RETURN = r"""
ok:
  description: Whether every run was a measurement.
  type: bool
  returned: always
record:
  description: What was measured, and all that it depends on. The file has the same.
  type: dict
  returned: when anything was measured
file:
  description: Where the record is on the controller.
  type: str
  returned: when anything was measured
"""

from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import address, arguments
from ansible_collections.glm.fleet.plugins.module_utils.benchmark.job import AUTHORITIES, Folder, Job
from ansible_collections.glm.fleet.plugins.module_utils.files import read_text, write_text
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.host.probe import ProbeError, device_arguments, has_devices
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, NoAnswer, ask
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust

ANSWER_SECONDS = 120


class Measurement:
    """One call on the host: begin the job, or say how far it is."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.job = module.params["job"]
        self.folder = Folder(Path(self.job["folder"]))
        self.endpoint = Endpoint(
            address=self.job["address"],
            port=int(self.job["port"]),
            model=self.job["model"],
            api_key=module.params["api_key"],
            timeout=ANSWER_SECONDS,
            engine=self.engine(self.job.get("engine")),
            tls=Trust(self.job["tls_name"], self.job["authorities"]) if self.job.get("tls_name") else None,
        )

    def engine(self, place: Optional[dict[str, Any]]) -> Optional[Endpoint]:
        """The engine behind the endpoint, where this host reaches it."""
        if place is None:
            return None
        key = (read_text(Path(place["key_file"])) or None) if place["key_file"] else None
        return Endpoint(place["address"], int(place["port"]), self.job["model"], key, timeout=ANSWER_SECONDS)

    def run(self) -> dict[str, Any]:
        return self.start() if self.module.params["phase"] == "start" else self.status()

    def status(self) -> dict[str, Any]:
        state = self.folder.state()
        running = self.folder.running()
        if not running and not state.get("finished"):
            raise Unmet(
                "the measurement to keep running on the host",
                "that its process ended without an error message (killed, or out of memory)",
                "read the kernel's log there and run this again",
            )
        return {"changed": False, "running": running, "state": state}

    def start(self) -> dict[str, Any]:
        state = self.folder.state()
        if self.folder.running():
            if state.get("fingerprint") != self.job["fingerprint"]:
                raise Unmet(
                    "no other measurement of this replica",
                    f"one that began {self.age(state)} ago and is still running",
                    "wait for it; two at once would measure each other",
                )
            return {"changed": False, "running": True, "reattached": True, "state": state}
        self.require_endpoint()
        try:
            job = self.made()
        except ProbeError as error:
            raise QuotingError(f"expected the plan's devices on the host, but {error}.") from error
        if job.stop:
            # A client whose job was killed may still be there, and still measure.
            run(tuple(job.stop), 60)
        if self.job.get("authorities"):
            # What the client trusts, which is not this process. Its container sees the folder.
            write_text(self.folder.path / AUTHORITIES, self.job["authorities"], 0o644)
        self.folder.begin(job)
        return {"changed": False, "running": True, "reattached": False, "state": self.folder.state()}

    @staticmethod
    def age(state: dict[str, Any]) -> str:
        return f"{max(0, round((state.get('updated', 0) - state.get('started', 0)) / 60))} min"

    def require_endpoint(self) -> None:
        """Refuse what cannot be measured before anything is: the client would only say so in its result."""
        scheme = "https" if self.endpoint.tls else "http"
        where = address.url(self.endpoint.address, self.endpoint.port, scheme=scheme)
        try:
            answer = ask(self.endpoint, "GET", "/v1/models", key=self.endpoint.api_key)
        except NoAnswer as error:
            raise Unmet(
                f"an endpoint at {where}",
                f"none: {error}",
                "check the unit (systemctl status glm-serve-0) and the address and port of the plan",
            ) from error
        if answer.status in (401, 403):
            raise Unmet(
                f"{where} to take the key", answer.short(), "use the key it was started with (glm_api_key_file)"
            )
        cards = (answer.body.get("data") or []) if isinstance(answer.body, dict) else []
        names = [card.get("id") for card in cards]
        if self.endpoint.model not in names:
            found = ", ".join(map(str, names)) or answer.short()
            raise Unmet(
                f"{where} to serve {self.endpoint.model}", found, "compare glm_served_model_name with what was deployed"
            )
        context = cards[names.index(self.endpoint.model)].get("max_model_len")
        if context and context < self.job["tokens"]:
            raise Unmet(
                f"a context of at least {self.job['tokens']} tokens for this workload",
                context,
                "serve with a longer one (glm_engine_args), or choose another glm_workload",
            )

    def made(self) -> Job:
        container = self.job["container"]
        command = [self.job["program"]] if not container else self.docker(container)
        environment = dict(self.job["environment"])
        if self.endpoint.api_key:
            environment["OPENAI_API_KEY"] = self.endpoint.api_key
        return Job(
            fingerprint=self.job["fingerprint"],
            endpoint=self.endpoint,
            command=command,
            runs=self.job["runs"],
            metrics=self.job["metrics"],
            metrics_path=(self.job["engine"] or {}).get("metrics", "/metrics"),
            stop=["docker", "rm", "--force", container["name"]] if container else [],
            environment=environment,
            run_timeout=self.module.params["run_timeout"],
            sample_seconds=self.module.params["sample_seconds"],
            gpus=not self.module.params["client_host"],
        )

    def docker(self, container: dict[str, Any]) -> list[str]:
        """The client in a container: on the host's network, where it reaches also an endpoint bound to loopback."""
        argv = ["docker", "run", "--rm", "--init", "--name", container["name"], "--network", "host", "--pull=never"]
        argv += ["--log-driver", "none", "--security-opt", "no-new-privileges"]
        # It computes nothing, but it looks for a device first; without one it takes the CPU.
        plan = self.module.params["plan"]
        if not self.module.params["client_host"] or has_devices(plan):
            argv += device_arguments(plan)
        # Without values: docker takes them from its own environment, so no list of processes shows the key.
        for name in (*self.job["environment"], "OPENAI_API_KEY"):
            argv += ["--env", name]
        argv += ["--mount", f"type=bind,source={container['source']},target={container['target']},readonly"]
        argv += ["--mount", f"type=bind,source={self.folder.path},target={container['results']}"]
        return [*argv, "--entrypoint", self.job["program"], container["image"]]


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.BENCHMARK_RUN, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode: nothing was measured")
    end(module, "benchmark", Measurement(module).run, labelled=False)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``serving_plan``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_plan
short_description: Decide exactly how a model is served on a host, or refuse with the reason
version_added: 0.1.0
description:
  - Turns intent (model, precision, engine, profile) and the host's accelerators into one plan that all roles read. It
    has the image, the argument list, environment, mounts, memory arithmetic, time-outs and the contract with clients.
  - Runs on the controller, needs no connection and no network, changes nothing and works in check mode.
  - Refuses what cannot work (memory, missing kernels, flags that the engine version does not have) before anything is
    touched, with the arithmetic and what would work.
options:
  model:
    description: Name of a model in the catalogue.
    type: str
    required: true
  precision:
    description:
      - Form of the weights, such as C(fp8), C(bf16) or C(nvfp4), where the catalogue has it for the model. By default
        C(fp8), or the first that it has.
    type: str
  engine:
    description: Inference engine, C(vllm) or C(sglang). By default the one that the catalogue prefers.
    type: str
  engine_version:
    description: Version of the engine. By default the catalogue's, which says why.
    type: str
  image:
    description:
      - Image of your own, as C(repository:tag), C(repository@sha256:…) or both. Needs O(engine_version), the release
        that it is based on.
    type: str
  image_variant:
    description:
      - Variant of the engine's image, such as C(cu129) or C(rocm720-mi35x). By default the first that suits the host.
    type: str
  profile:
    description: Kind of work to serve.
    type: str
    default: agentic
  accelerator:
    description: Accelerator of the host, such as C(B200). Required, but a host variable usually supplies it.
    type: str
  accelerator_count:
    description: How many accelerators the host has. Required, but a host variable usually supplies it.
    type: int
  engine_args:
    description:
      - Engine arguments that win over the recipe's, without dashes.
      - V(true) is a bare switch, V(false) its negative form, V(null) removes the argument, a list gives several values.
    type: dict
    default: {}
  engine_env:
    description:
      - Environment variables of the engine that win over the recipe's. V(null) removes one.
      - What the plan sets itself is refused, and so is what looks like a secret.
    type: dict
    default: {}
  extra_mounts:
    description:
      - Files and folders of the host that the engine's container sees as well.
      - Each has C(source), C(target) (by default the same path) and C(read_only) (by default true).
    type: list
    elements: dict
    default: []
  extra_repositories:
    description:
      - Repositories that O(engine_args) names beside the model's, such as a draft model, as C(owner/name) or
        C(owner/name@revision).
      - Where an argument names one, it is given the folder that the host fetches it to.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  served_model_name:
    description: Name that clients use. By default the checkpoint's, such as C(glm-5.1-fp8).
    type: str
  bind:
    description: Where the endpoint listens. C(private), C(loopback), C(public), or a private address of the host.
    type: str
    default: loopback
  private_address:
    description: Private address of the host, used when O(bind=private). Refused when it is in no private range.
    type: str
  port:
    description: TCP port of the endpoint on the host.
    type: int
    default: 8000
  engine_port:
    description: TCP port of 127.0.0.1 where the front door of the host reaches the engine.
    type: int
    default: 18000
  drain_seconds:
    description:
      - Seconds that requests which run have when the engine is stopped, at most 1500. V(0) ends them at once.
      - V(-1) is as long as the longest answer may take, at ten tokens a second, and at most 600.
    type: int
    default: -1
  allow_unsafe_weights:
    description:
      - Lets the engine run code and pickles of the weights' repository. Without it, arguments that do so are refused.
    type: bool
    default: false
    version_added: 0.2.0
  tls:
    description:
      - Whose certificate the endpoint shows, V(fleet) (of an authority of the fleet's own), V(own), V(acme) (ordered
        by the host), or V(none) for plain HTTP. V(auto) is V(fleet), and V(none) on loopback.
    type: str
    choices: [auto, fleet, own, acme, none]
    default: auto
  tls_names:
    description: DNS names and addresses by which clients reach the host, the main one first.
    type: list
    elements: str
    default: []
  acme_directory:
    description: With O(tls=acme), the directory of the authority that certificates are ordered from.
    type: str
    default: https://acme-v02.api.letsencrypt.org/directory
  acme_agree:
    description: Whether you agree to the terms of service that the directory names. Required with O(tls=acme).
    type: bool
    default: false
  acme_email:
    description: What the authority writes to about the account.
    type: str
  public_address:
    description: Address of the host in the internet, for the certificate of an endpoint on every address.
    type: str
  data_dir:
    description: Folder on the host for weights and compile caches.
    type: str
    default: /var/lib/glm
  config_dir:
    description: Folder on the host for the engine's environment and secret files.
    type: str
    default: /etc/glm
  revision:
    description: Branch, tag or commit of the model's repository.
    type: str
    default: main
  engine_dir:
    description: Folder on the host for engines that run without a container.
    type: str
    default: /opt/glm/engines
  repository:
    description: Repository of the weights, where it is not the catalogue's. Required for forms that are not published.
    type: str
  model_config:
    description:
      - A C(config.json) on the controller, of a model that the catalogue does not know. O(model) is its name then.
    type: path
  runtime:
    description: How the engine runs. C(container) for Docker, C(venv) for a Python environment under systemd.
    type: str
    default: container
  gpus:
    description: Indices of the GPUs of the host that may be used, from 0. By default all.
    type: list
    elements: int
    default: []
  replicas:
    description: How many replicas share the host. Each has its own plan, GPUs and port.
    type: int
    default: 1
  nodes:
    description: How many hosts one replica spans.
    type: int
    default: 1
  rdma:
    description: Whether the hosts of one replica have RDMA between them. Without it, or where that is not known, each
      host is a stage of a pipeline.
    type: bool
    default: false
  fleet_hosts:
    description:
      - With O(nodes) above 1, all hosts of the fleet. They are grouped in this order; the first of each group is
        its head.
    type: list
    elements: str
    default: []
  interface:
    description: Network interface on which hosts of one replica talk.
    type: str
  driver_version:
    description: Driver of the host, if known. A driver too old for the image is then refused.
    type: str
  lock_file:
    description: Lock file on the controller. A missing file is an empty one. The plan follows it and never writes it.
    type: path
  catalog:
    description:
      - Folders on the controller with your own entries, in the form of the files of C(catalog/). They are laid over the
        shipped ones, in this order.
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Plan GLM-5.1 on the host's accelerators
  glm.fleet.serving_plan:
    model: GLM-5.1
    accelerator: "{{ glm_host_accelerator }}"
    accelerator_count: "{{ glm_host_accelerator_count }}"
    bind: private
    private_address: "{{ glm_host_private_address }}"
    lock_file: "{{ inventory_dir }}/glm.lock.yml"

- name: Serve fewer parallel requests, without speculative decoding
  glm.fleet.serving_plan:
    model: GLM-5.1
    accelerator: H200
    accelerator_count: 8
    engine_args:
      max-num-seqs: 16
      speculative-config:
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to the host.
  returned: success
  type: dict
  contains:
    glm_plans:
      description: The serving plans of the host, one for each replica, in order. docs/plan.md has their fields.
      type: list
      elements: dict
      returned: success
      sample:
        - schema: 4
          replica: 0
          served_model_name: glm-5.1-fp8
          image: {reference: "vllm/vllm-openai:v0.32.0"}
"""

#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``weights_stage``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_stage
short_description: Bring the weights of models to an object store
version_added: 0.2.0
description:
  - Streams the files of a commit from the hub into a bucket, without keeping them on the controller's disk. Each file
    is hashed on the way; one whose hash is not the hub's becomes no object.
  - Pickles and code of a repository are left out unless they are allowed, as on hosts. A repository whose weights are
    pickles only is refused.
  - The commit is that of the lock file, which gets it when it has none.
  - Writes a record beside the files, from which later runs and deploys know which of them are right. A run that was
    interrupted is continued by the next.
  - Says what the weights cost in the store each month, where the catalogue knows its price.
options:
  wanted:
    description: What is to be where. Equal entries, of several hosts, count once.
    type: list
    elements: dict
    required: true
    suboptions:
      model:
        description: Model, by its name in the catalogue.
        type: str
        default: ""
      precision:
        description: Form of the weights. Without it C(fp8), or the first that the model has.
        type: str
        default: ""
      repository:
        description: Repository of the weights, where it is not the catalogue's.
        type: str
        default: ""
      model_config:
        description: The C(config.json) of a model that the catalogue does not know.
        type: str
        default: ""
      revision:
        description: Branch, tag or commit.
        type: str
        default: ""
      extra_repositories:
        description: Repositories beside the model's, such as a draft model, as C(owner/name) or C(owner/name@revision).
        type: list
        elements: str
        default: []
      origin:
        description: Bucket and prefix, such as V(s3://acme-weights/models).
        type: str
        default: ""
      endpoint:
        description: Address of the store. Empty lets boto3 find it.
        type: str
        default: ""
      region:
        description: Region of the store. Empty lets boto3 find it.
        type: str
        default: ""
      lock_file:
        description: Lock file on the controller that has the commit.
        type: path
        required: true
      catalog:
        description: Folders on the controller with your own entries. See M(glm.fleet.serving_plan).
        type: list
        elements: path
        default: []
      allow_unsafe:
        description: Bring pickles and code of the repository, too. Hosts fetch them only where they may.
        type: bool
        default: false
  hub_endpoint:
    description: Address of the hub, or of a mirror that speaks its protocol.
    type: str
    default: https://huggingface.co
  hub_token:
    description: Read token for the hub.
    type: str
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Asks hub and store, says what would be brought, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - boto3 1.36 or newer on the controller
notes:
  - The key pair of the store is found by boto3 (E(AWS_PROFILE), or E(AWS_ACCESS_KEY_ID) and E(AWS_SECRET_ACCESS_KEY)).
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Bring the weights of GLM-5.1 to a bucket
  glm.fleet.weights_stage:
    wanted:
      - model: GLM-5.1
        precision: fp8
        revision: main
        origin: s3://acme-weights/models
        region: eu-central-1
        lock_file: "{{ inventory_dir }}/glm.lock.yml"
"""

RETURN = r"""
staged:
  description: The weights of each model and place.
  returned: success
  type: list
  elements: dict
  contains:
    repository:
      description: Repository on the hub.
      type: str
    commit:
      description: The commit.
      type: str
    place:
      description: Where they are.
      type: str
    files:
      description: Number of files that belong there.
      type: int
    total_bytes:
      description: Size of these files.
      type: int
    brought_bytes:
      description: Bytes that were brought, or would be in check mode.
      type: int
    seconds:
      description: Seconds that it took.
      type: float
    usd_per_month:
      description: What they cost there each month; none where the catalogue does not know the store.
      type: float
    locked_now:
      description: Whether this call wrote the commit into the lock file.
      type: bool
"""

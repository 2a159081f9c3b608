# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put an ssh host key into the cloud-init user data of an instance, beside whatever the user gives it.

This module util is PRIVATE to the collection. Pure. JSON is valid YAML, so no library for YAML is needed.
"""

from __future__ import annotations

import base64
import email
import json
import re

# What cloud-init itself takes for MIME: this header near the beginning of the document.
_MIME = re.compile(r"^mime-version:", re.IGNORECASE | re.MULTILINE)
_MIME_WITHIN = 4096
_HOST_KEYS = re.compile(r"(?<![\w-])ssh_keys[\"']?\s*:")
_BOUNDARY = "==glm-fleet-{}=="


def host_key_config(private: str, public: str) -> str:
    """The cloud-config that gives an instance this ed25519 host key and removes those that its image came with."""
    keys = {"ed25519_private": private, "ed25519_public": public}
    return "#cloud-config\n" + json.dumps({"ssh_deletekeys": True, "ssh_keys": keys}) + "\n"


def combined(config: str, given: str) -> str:
    """``config`` and the user's own data, of whatever form, as one document; the user's comes last and so wins.

    cloud-init finds the form of a text/plain part by its first line, as it does for a document by itself: a script,
    cloud-config, an archive, an include, a jinja template. A multi-part document becomes a part with parts.
    """
    if not given.strip():
        return config
    parts = [_part(config), given if _is_mime(given) else _part(given)]
    number = 0
    while any(_BOUNDARY.format(number) in part for part in parts):
        number += 1
    boundary = _BOUNDARY.format(number)
    head = f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n'
    return head + "".join(f"--{boundary}\n{part}\n" for part in parts) + f"--{boundary}--\n"


def sets_host_keys(given: str) -> bool:
    """Whether the user's own data sets ``ssh_keys``: cloud-init would take those instead of ours."""
    lines = (line for text in _texts(given) for line in text.splitlines())
    return any(_HOST_KEYS.search(line) for line in lines if not line.lstrip().startswith("#"))


def _is_mime(text: str) -> bool:
    return bool(_MIME.search(text[:_MIME_WITHIN]))


def _part(text: str) -> str:
    """A document as a part. Only ASCII survives cloud-init as it is."""
    if text.isascii():
        return f'Content-Type: text/plain; charset="us-ascii"\nMIME-Version: 1.0\n\n{text}'
    encoded = base64.encodebytes(text.encode("utf-8")).decode("ascii")
    head = 'Content-Type: text/plain; charset="utf-8"\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n'
    return head + encoded


def _texts(document: str) -> list[str]:
    """The document, or the decoded parts of one with parts."""
    if not _is_mime(document):
        return [document]
    found = []
    for part in email.message_from_string(document).walk():
        content = part.get_payload(decode=True)
        if isinstance(content, bytes):
            found.append(content.decode("utf-8", "replace"))
    return found

# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprints of the keys in a keyring, without gpg, which a fresh host may lack (RFC 9580, RFC 4880).

This module util is PRIVATE to the collection. Pure. What is not plainly a list of public keys is refused, so that apt
cannot find a key in a file in which this found none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
_PUBLIC_KEY = 6
# What belongs to a public key: signatures, subkeys (which count only with a signature of the key), trust, user ids.
_BELONGS = (2, 14, 12, 13, 17)
_VERSION = 4


class NoKeyring(ValueError):
    """The data is not a list of public keys; the text says what is wrong, as a clause that follows "found"."""


def is_armoured(data: bytes) -> bool:
    """Whether a keyring is text; apt takes such a file by the ending ``.asc``, and others by ``.gpg``."""
    return data.lstrip().startswith(b"-----BEGIN PGP")


def fingerprints(data: bytes) -> list[str]:
    """The fingerprints of all primary keys of a keyring, 40 upper-case hexadecimal digits each. Raises NoKeyring."""
    blocks = [_dearmoured(block) for block in _ARMOUR.findall(data)] if is_armoured(data) else [data]
    found = []
    for block in blocks:
        for tag, body in _packets(block):
            if tag == _PUBLIC_KEY:
                found.append(_fingerprint(body))
            elif tag not in _BELONGS or not found:
                raise NoKeyring(f"an OpenPGP packet of type {tag} where a public key belongs")
    if not found:
        raise NoKeyring("no OpenPGP public key")
    return found


def _dearmoured(block: bytes) -> bytes:
    """What is between the lines of an armoured block: after its headers, and without its checksum."""
    lines = [line.strip() for line in block.splitlines()]
    start = lines.index(b"") + 1 if b"" in lines else 0
    text = b"".join(line for line in lines[start:] if not line.startswith(b"="))
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise NoKeyring("armoured data that is damaged") from None


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each packet."""
    position = 0
    while position < len(data):
        first = data[position]
        if not first & 0x80:
            raise NoKeyring("data that is not OpenPGP")
        size_of = _new_length if first & 0x40 else _old_length
        tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
        begin, length = size_of(data, position)
        if begin + length > len(data):
            raise NoKeyring("OpenPGP data that breaks off")
        yield tag, data[begin : begin + length]
        position = begin + length


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    """Where the body of a packet of the present form begins, and its length in bytes."""
    octets = data[position + 1 : position + 6]
    if octets and octets[0] < 192:
        return position + 2, octets[0]
    if len(octets) > 1 and octets[0] < 224:
        return position + 3, ((octets[0] - 192) << 8) + octets[1] + 192
    if len(octets) == 5 and octets[0] == 255:
        return position + 6, int.from_bytes(octets[1:], "big")
    raise NoKeyring("an OpenPGP packet without a length")


def _old_length(data: bytes, position: int) -> tuple[int, int]:
    """The same for the old form, which GnuPG still writes."""
    size = {0: 1, 1: 2, 2: 4}.get(data[position] & 0x03)
    octets = data[position + 1 : position + 1 + (size or 0)]
    if size is None or len(octets) < size:
        raise NoKeyring("an OpenPGP packet without a length")
    return position + 1 + size, int.from_bytes(octets, "big")


def _fingerprint(body: bytes) -> str:
    if not body or body[0] != _VERSION or len(body) > 0xFFFF:
        raise NoKeyring(f"a public key of version {body[0] if body else 'none'}, whose fingerprint has another form")
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    # The fingerprint of a version 4 key is defined as SHA-1.
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()

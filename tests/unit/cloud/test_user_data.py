"""A host key beside the user's own user data: every form that cloud-init knows arrives as it was given."""

from __future__ import annotations

import email
import json
from email.message import Message

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import user_data

CONFIG = user_data.host_key_config("-----BEGIN\nsecret\n-----END\n", "ssh-ed25519 AAAA")
MULTIPART = (
    'Content-Type: multipart/mixed; boundary="==X=="\nMIME-Version: 1.0\n\n--==X==\n'
    'Content-Type: text/x-shellscript; charset="us-ascii"\n\n#!/bin/sh\necho one\n\n--==X==\n'
    "Content-Type: text/cloud-config\n\nruncmd: [two]\n\n--==X==--\n"
)
FORMS = {
    "script": "#!/bin/sh\necho hi\n",
    "script that contains a boundary": "#!/bin/sh\necho '--==glm-fleet-0=='\n--==glm-fleet-0==\necho hi\n",
    "script in Danish": "#!/bin/sh\necho rødgrød ☃\n",
    "script with carriage returns": "#!/bin/sh\r\necho hi\r\n",
    "cloud-config": "#cloud-config\nruncmd:\n  - [touch, /x]\n",
    "template": "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\n",
    "include": "#include\nhttps://example.com/a\n",
    "boothook": "#cloud-boothook\n#!/bin/sh\ntrue\n",
    "archive": "#cloud-config-archive\n- type: text/x-shellscript\n  content: |\n    #!/bin/sh\n",
    "no end of line": "#!/bin/sh\necho hi",
}


def leaves(document: str) -> list[tuple[str, str]]:
    """Type and content of the parts as cloud-init walks them: what has parts is passed over."""
    assert "mime-version:" in document[:4096].lower()
    found = [part for part in email.message_from_string(document).walk() if not part.is_multipart()]
    assert not any(part.defects for part in found)
    return [(part.get_content_type(), decoded(part)) for part in found]


def decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode("utf-8")


def test_without_user_data_the_key_is_all() -> None:
    head, _line, body = user_data.combined(CONFIG, " \n").partition("\n")
    assert head == "#cloud-config"
    assert json.loads(body) == {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": "-----BEGIN\nsecret\n-----END\n", "ed25519_public": "ssh-ed25519 AAAA"},
    }


@pytest.mark.parametrize("given", FORMS.values(), ids=FORMS)
def test_every_form_arrives_as_it_was_given_after_the_key(given: str) -> None:
    # Of text/plain cloud-init looks at the first line, as it does when a document has no header.
    assert leaves(user_data.combined(CONFIG, given)) == [("text/plain", CONFIG), ("text/plain", given)]


@pytest.mark.parametrize("head", ["", "From nobody Thu Jan  1 00:00:00 1970\n"])
def test_a_document_with_parts_keeps_its_parts(head: str) -> None:
    first, *own = leaves(user_data.combined(CONFIG, head + MULTIPART))
    assert first == ("text/plain", CONFIG)
    assert own == [("text/x-shellscript", "#!/bin/sh\necho one\n"), ("text/cloud-config", "runcmd: [two]\n")]


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        ("#cloud-config\nssh_keys:\n  rsa_private: x\n", True),
        ('#cloud-config\n{"ssh_keys": {"rsa_private": "x"}}\n', True),
        ("#cloud-config-archive\n- content: |\n    #cloud-config\n    ssh_keys: {}\n", True),
        (MULTIPART.replace("runcmd: [two]", "ssh_keys: {}"), True),
        (MULTIPART.replace("\n\nruncmd: [two]", "\nContent-Transfer-Encoding: base64\n\nc3NoX2tleXM6IHt9"), True),
        ("#cloud-config\n# ssh_keys: none of ours\nmy_ssh_keys: x\nssh_deletekeys: false\n", False),
        (MULTIPART, False),
        ("", False),
    ],
)
def test_host_keys_of_the_user_are_seen(given: str, sets: bool) -> None:
    assert user_data.sets_host_keys(given) is sets

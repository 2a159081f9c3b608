"""host_key: waiting for ssh, pinning once, refusing a key that is not expected or has changed; against ssh servers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud.host_keys import Expected
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys

ROOT = Path(__file__).parents[3]


class SshServer:
    """An ssh server with one host key that lets nobody in unless its interface does.

    ``silent`` accepts connections and says nothing.
    """

    def __init__(
        self, key: paramiko.PKey, port: int = 0, silent: bool = False, interface: paramiko.ServerInterface | None = None
    ) -> None:
        self.key = key
        self.interface = interface or paramiko.ServerInterface()
        self.silent = silent
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            self.held.append(connection)
            if not self.silent:
                transport = paramiko.Transport(connection)
                transport.add_server_key(self.key)
                self.interface.transport = transport
                transport.start_server(event=threading.Event(), server=self.interface)

    def close(self) -> None:
        # Closing alone would leave the thread in accept(), and the port taken.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.held:
            connection.close()


def ed25519(tmp_path: Path, name: str) -> paramiko.PKey:
    path = tmp_path / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SshServer]]:
    servers = []

    def make(key: paramiko.PKey, port: int = 0, silent: bool = False, **more: paramiko.ServerInterface) -> SshServer:
        servers.append(SshServer(key, port, silent, **more))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_scan_gives_the_key_that_ssh_keygen_prints(tmp_path: Path, start: Callable[..., SshServer]) -> None:
    server = start(ed25519(tmp_path, "key"))
    found = host_keys.scan("127.0.0.1", server.port)
    printed = subprocess.run(["ssh-keygen", "-l", "-f", f"{tmp_path}/key"], capture_output=True, text=True, check=True)
    assert found.kind == "ssh-ed25519"
    assert found.fingerprint == printed.stdout.split()[1]
    assert found.line("id").split()[1:] == (tmp_path / "key.pub").read_text().split()[:2]


def test_a_pinned_rsa_key_is_asked_for_by_its_type(start: Callable[..., SshServer]) -> None:
    server = start(paramiko.RSAKey.generate(2048))
    assert host_keys.scan("127.0.0.1", server.port, ["ssh-rsa"]).kind == "ssh-rsa"
    with pytest.raises(paramiko.ssh_exception.IncompatiblePeer):
        host_keys.scan("127.0.0.1", server.port, ["ssh-ed25519"])


def test_pinning(tmp_path: Path) -> None:
    path = tmp_path / "new/known_hosts"
    key = host_keys.HostKey("ssh-ed25519", b"one")
    assert host_keys.pin(path, "i-1", key) is True
    assert host_keys.pin(path, "i-1", key) is False
    assert host_keys.pin(path, "i-2", host_keys.HostKey("ssh-ed25519", b"two")) is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text("utf-8").splitlines()[0] == f"i-1 ssh-ed25519 {base64.b64encode(b'one').decode()}"
    with pytest.raises(host_keys.HostKeyChanged) as caught:
        host_keys.pin(path, "i-1", host_keys.HostKey("ssh-ed25519", b"other"))
    assert key.fingerprint in str(caught.value)
    assert host_keys.HostKey("ssh-ed25519", b"other").fingerprint in str(caught.value)
    assert f"ssh-keygen -R i-1 -f {path}" in str(caught.value)


def test_lines_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# mine\n@cert-authority * ssh-rsa AAAA\nbroken line\nother,i-9 ssh-rsa AAAAB3Nz", "utf-8")
    host_keys.pin(path, "i-1", host_keys.HostKey("ssh-ed25519", b"one"))
    lines = path.read_text("utf-8").splitlines()
    assert lines[:4] == ["# mine", "@cert-authority * ssh-rsa AAAA", "broken line", "other,i-9 ssh-rsa AAAAB3Nz"]
    assert len(lines) == 5
    assert [key.kind for key in host_keys.pinned(path, "i-9")] == ["ssh-rsa"]


def test_many_processes_pin_at_once(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys as h\n"
        "for n in range(20):\n    h.pin(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', h.HostKey('ssh-ed25519', b'k'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], env=environment) for name in ("a", "b", "c")
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(path.read_text("utf-8").splitlines()) == 60


def test_waiting_ends_with_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_keys, "RETRY_SECONDS", 0.05)
    tried = r"at 127.0.0.1 port 9 within 0.3 s, found Connection refused \(\d+x\)"
    with pytest.raises(host_keys.HostKeyError, match=tried):
        host_keys.wait_for_key(lambda: host_keys.scan("127.0.0.1", 9), "127.0.0.1 port 9", 0.3)


def test_a_server_that_says_nothing_is_retried(
    tmp_path: Path, start: Callable[..., SshServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_keys, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(host_keys, "CONNECT_SECONDS", 0.3)
    server = start(ed25519(tmp_path, "key"), silent=True)
    with pytest.raises(host_keys.HostKeyError, match="banner"):
        host_keys.wait_for_key(lambda: host_keys.scan("127.0.0.1", server.port), "here", 0.5)
    server.silent = False
    monkeypatch.setattr(host_keys, "CONNECT_SECONDS", 300)
    assert host_keys.wait_for_key(lambda: host_keys.scan("127.0.0.1", server.port), "here", 300).kind == "ssh-ed25519"


@pytest.mark.parametrize(
    ("arguments", "known", "alias", "jump"),
    [
        (["-o", "UserKnownHostsFile=/k", "-o", "HostKeyAlias=i-1"], "/k", "i-1", False),
        (["-oUserKnownHostsFile=/k", "-o", "HostKeyAlias i-1", "-C"], "/k", "i-1", False),
        (["-o", 'UserKnownHostsFile="/a b"', "-J", "bastion"], "/a b", None, True),
        (["-o", "ProxyCommand=ssh -W %h:%p bastion"], None, None, True),
        (["-o", "ProxyJump=none", "-o", "HostKeyAlias=a", "-o", "hostkeyalias=b"], None, "a", False),
        ([], None, None, False),
    ],
)
def test_ssh_options_are_understood(arguments: list[str], known: str | None, alias: str | None, jump: bool) -> None:
    client = host_keys.SshClient("ssh", ["-F", "none", *arguments], "203.0.113.7")
    assert client.own_known_hosts() == (known, alias)
    assert (host_keys.jump_of(client.options()) is not None) is jump


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - glm.fleet.host_key:
        timeout: 1
"""


def play(tmp_path: Path, variables: dict[str, object], *arguments: str, **settings: str) -> tuple[int, str]:
    (tmp_path / "play.yml").write_text(PLAYBOOK, "utf-8")
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"gpu-3": variables}}}), "utf-8")
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_INVENTORY_ENABLED": "yaml",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"), **settings,
    }  # fmt: skip
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml"), "-v", "-i",
         str(tmp_path / "hosts.yml"), *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def variables(tmp_path: Path, more: str = "", **others: object) -> dict[str, object]:
    arguments = f"-o UserKnownHostsFile={tmp_path}/known -o HostKeyAlias=i-0a1b {more}"
    return {"ansible_ssh_extra_args": arguments, **others}


def test_a_play_pins_once_then_agrees_then_refuses_another_key(tmp_path: Path, start: Callable[..., SshServer]) -> None:
    server = start(ed25519(tmp_path, "first"))
    host = variables(tmp_path, ansible_host="127.0.0.1", ansible_port=server.port)
    code, text = play(tmp_path, host, "--check")
    assert code == 0 and "changed=1" in text and "alias: i-0a1b" in text
    code, text = play(tmp_path, host)
    assert code == 0 and "changed=0" in text
    first = host_keys.scan("127.0.0.1", server.port).fingerprint
    server.close()
    other = start(ed25519(tmp_path, "second"), server.port)
    second = host_keys.scan("127.0.0.1", other.port).fingerprint
    code, text = play(tmp_path, host)
    assert code != 0
    assert "gpu-3 (127.0.0.1), ssh: the host key of i-0a1b has changed" in text
    assert first in text and second in text and "ssh-keygen -R i-0a1b" in text


def launched_with(tmp_path: Path, key: paramiko.PKey) -> Path:
    """As a launch leaves it: the public key of the instance in the fleet's state."""
    file = tmp_path / "state" / "host_keys" / "i-0a1b.pub"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{key.get_name()} {key.get_base64()}\n", "utf-8")
    return file


def test_an_instance_shows_the_key_that_it_was_launched_with_or_nothing_is_pinned(
    tmp_path: Path, start: Callable[..., SshServer]
) -> None:
    expected = ed25519(tmp_path, "expected")
    file = launched_with(tmp_path, expected)
    between = start(ed25519(tmp_path, "between"))
    host = variables(
        tmp_path, ansible_host="127.0.0.1", ansible_port=between.port, glm_state_dir=str(tmp_path / "state")
    )
    found = host_keys.scan("127.0.0.1", between.port).fingerprint
    code, text = play(tmp_path, host)
    assert code != 0
    assert "gpu-3 (127.0.0.1), ssh: expected the host key that i-0a1b was launched with, " in text
    wanted = host_keys.HostKey(expected.get_name(), expected.asbytes()).fingerprint
    assert f"{wanted} (ssh-ed25519), found {found} (ssh-ed25519). Nothing was pinned" in text
    assert f"rm {file}" in text
    assert not (tmp_path / "known").exists()
    between.close()
    real = start(expected, between.port)
    code, text = play(tmp_path, host)
    assert code == 0 and "changed=1" in text and "known_before: true" in text
    assert host_keys.pinned(tmp_path / "known", "i-0a1b") == [host_keys.scan("127.0.0.1", real.port)]
    code, text = play(tmp_path, host)
    assert code == 0 and "changed=0" in text


def test_a_host_with_keys_of_other_types_only_is_not_the_one_that_was_launched(
    tmp_path: Path, start: Callable[..., SshServer]
) -> None:
    launched_with(tmp_path, ed25519(tmp_path, "expected"))
    server = start(paramiko.RSAKey.generate(2048))
    host = variables(tmp_path, ansible_host="127.0.0.1", ansible_port=server.port, glm_state_dir=f"{tmp_path}/state")
    code, text = play(tmp_path, host)
    assert code != 0 and "(ssh-ed25519), found no ssh-ed25519 key at all. Nothing was pinned" in text


def test_a_key_pinned_before_does_not_stand_in_for_the_expected_one(
    tmp_path: Path, start: Callable[..., SshServer]
) -> None:
    server = start(ed25519(tmp_path, "key"))
    host = variables(tmp_path, ansible_host="127.0.0.1", ansible_port=server.port, glm_state_dir=f"{tmp_path}/state")
    code, text = play(tmp_path, host)
    assert code == 0 and "known_before: false" in text
    file = launched_with(tmp_path, ed25519(tmp_path, "expected"))
    assert "expected the host key that i-0a1b was launched with" in play(tmp_path, host)[1]
    # The way out that the message names.
    file.unlink()
    assert play(tmp_path, host)[0] == 0
    file.write_text("nothing like a key\n", "utf-8")
    code, text = play(tmp_path, host)
    assert code != 0 and f"gpu-3, ssh: expected the public host key of i-0a1b in {file}, found something else" in text


def test_an_ssh_server_that_is_up_before_cloud_init_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_keys, "RETRY_SECONDS", 0.01)
    right, image = host_keys.HostKey("ssh-ed25519", b"right"), host_keys.HostKey("ssh-ed25519", b"image")
    kept = Expected(tmp_path)
    kept.path("i-1").write_text(f"ssh-ed25519 {base64.b64encode(b'right').decode()}\n", "utf-8")
    shown = [image, image, right]
    asked: list[list[str]] = []

    def show(kinds: list[str]) -> host_keys.HostKey:
        asked.append(kinds)
        return shown.pop(0)

    assert host_keys.agree(show, tmp_path / "known", "i-1", kept, 300) == (right, True)
    assert asked == [["ssh-ed25519"]] * 3
    # Once it is pinned, there is nothing to wait for.
    shown = [image, right]
    with pytest.raises(host_keys.HostKeyChanged, match="was launched with"):
        host_keys.agree(show, tmp_path / "known", "i-1", kept, 300)
    assert shown == [right]


def test_cloud_init_gets_its_minute_however_long_the_host_took_to_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(host_keys.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(host_keys.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    right, image = host_keys.HostKey("ssh-ed25519", b"right"), host_keys.HostKey("ssh-ed25519", b"image")
    kept = Expected(tmp_path)
    kept.path("i-1").write_text(f"ssh-ed25519 {base64.b64encode(b'right').decode()}\n", "utf-8")

    def show(_kinds: list[str]) -> host_keys.HostKey:
        now[0] += 90 if not now[0] else 0
        return right if now[0] > 100 else image

    assert host_keys.agree(show, tmp_path / "known", "i-1", kept, 60) == (right, True)


def test_a_play_names_the_host_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        code, text = play(tmp_path, variables(tmp_path, ansible_host="127.0.0.1", ansible_port=port))
    assert code != 0
    assert f"gpu-3 (127.0.0.1), ssh: expected an ssh server at 127.0.0.1 port {port} within 1 s, found " in text
    assert "its firewall lets this machine reach that port" in text
    assert "ProxyJump in ~/.ssh/config, or -J in ansible_ssh_common_args" in text


def test_a_play_names_the_host_without_an_address(tmp_path: Path) -> None:
    code, text = play(tmp_path, variables(tmp_path))
    assert code != 0 and "gpu-3, ssh: expected an address, but the host never got one" in text


def test_hosts_of_the_user_are_left_alone(tmp_path: Path) -> None:
    code, text = play(tmp_path, {"ansible_host": "unreachable.invalid"})
    assert code == 0 and "changed=0" in text and "ssh configuration applies" in text


def test_hashed_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    key = host_keys.HostKey("ssh-ed25519", b"one")
    hashed = paramiko.HostKeys.hash_host("i-1")
    path.write_text(f"|1|broken {key.line('')[1:]}\n{key.line(hashed)}\n", "utf-8")
    assert host_keys.pinned(path, "i-1") == [key]
    assert host_keys.pinned(path, "i-2") == []
    assert host_keys.pin(path, "i-1", key) is False


@pytest.fixture
def relay(tmp_path: Path, start: Callable[..., SshServer]) -> tuple[str, SshServer]:
    """A ProxyCommand that reaches an ssh server, whatever host it is asked for."""
    server = start(ed25519(tmp_path, "key"))
    script = tmp_path / "relay.py"
    script.write_text(
        "import os, socket, sys, threading\n"
        "remote = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "def outward():\n"
        "    while data := os.read(0, 65536):\n"
        "        remote.sendall(data)\n"
        "threading.Thread(target=outward, daemon=True).start()\n"
        "while data := remote.recv(65536):\n"
        "    os.write(1, data)\n"
    )
    return f"ProxyCommand={sys.executable} {script} {server.port}", server


def pins_behind_a_jump_host(tmp_path: Path, server: SshServer, host: dict[str, object], **settings: str) -> None:
    code, text = play(tmp_path, host, **settings)
    assert code == 0 and "changed=1" in text, text
    assert host_keys.pinned(tmp_path / "known", "i-0a1b") == [host_keys.scan("127.0.0.1", server.port)]


def behind_ssh_configuration(tmp_path: Path, text: str) -> str:
    """An ssh that has ``text`` for its ~/.ssh/config; the real one's place cannot be moved."""
    (tmp_path / "config").write_text(text, "utf-8")
    wrapper = tmp_path / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -F {tmp_path}/config "$@"\n', "utf-8")
    wrapper.chmod(0o755)
    return str(wrapper)


def test_a_key_behind_a_jump_host_is_fetched_with_ssh(tmp_path: Path, relay: tuple[str, SshServer]) -> None:
    command, server = relay
    host = variables(tmp_path, f'-o "{command}"', ansible_host="inside.invalid", ansible_port=22)
    pins_behind_a_jump_host(tmp_path, server, host)
    assert play(tmp_path, host)[1].count("changed=0") == 1


@pytest.mark.parametrize("name", ["ANSIBLE_SSH_COMMON_ARGS", "ANSIBLE_SSH_ARGS"])
def test_a_jump_host_of_the_environment_is_used(tmp_path: Path, relay: tuple[str, SshServer], name: str) -> None:
    command, server = relay
    host = variables(tmp_path, ansible_host="inside.invalid")
    pins_behind_a_jump_host(tmp_path, server, host, **{name: f"-o '{command}'"})


@pytest.mark.parametrize("option", ["ssh_common_args", "ssh_args"])
def test_a_jump_host_of_ansible_cfg_is_used(tmp_path: Path, relay: tuple[str, SshServer], option: str) -> None:
    command, server = relay
    (tmp_path / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = {ROOT}/.collections\n[ssh_connection]\n{option} = -o '{command}'\n", "utf-8"
    )
    host = variables(tmp_path, ansible_host="inside.invalid")
    pins_behind_a_jump_host(tmp_path, server, host, ANSIBLE_CONFIG=f"{tmp_path}/ansible.cfg")


def test_a_jump_host_of_a_variable_is_used(tmp_path: Path, relay: tuple[str, SshServer]) -> None:
    command, server = relay
    host = variables(tmp_path, ansible_host="inside.invalid", ansible_ssh_common_args=f"-o '{command}'")
    pins_behind_a_jump_host(tmp_path, server, host)


def test_a_jump_host_of_the_ssh_configuration_is_used(tmp_path: Path, relay: tuple[str, SshServer]) -> None:
    command, server = relay
    ssh = behind_ssh_configuration(tmp_path, f"Host *.invalid\n  {command.replace('=', ' ', 1)}\n")
    host = variables(tmp_path, ansible_host="inside.invalid")
    pins_behind_a_jump_host(tmp_path, server, host, ANSIBLE_SSH_EXECUTABLE=ssh)


def test_name_and_port_of_the_ssh_configuration_are_used(tmp_path: Path, start: Callable[..., SshServer]) -> None:
    server = start(ed25519(tmp_path, "key"))
    ssh = behind_ssh_configuration(tmp_path, f"Host gpu\n  HostName 127.0.0.1\n  Port {server.port}\n")
    pins_behind_a_jump_host(tmp_path, server, variables(tmp_path, ansible_host="gpu"), ANSIBLE_SSH_EXECUTABLE=ssh)


class Bastion(paramiko.ServerInterface):
    """Lets everybody in who has a key, and connects them onward to ``port`` of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, int]] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self.asked.append(destination)
        threading.Thread(target=self._connect, args=[chanid], daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def _connect(self, chanid: int) -> None:
        channel = self.transport.accept(10)
        with socket.create_connection(("127.0.0.1", self.port)) as onward:
            threading.Thread(target=self._copy, args=[channel.recv, onward.sendall], daemon=True).start()
            self._copy(onward.recv, channel.sendall)
        channel.close()

    @staticmethod
    def _copy(read: Callable[[int], bytes], write: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := read(65536):
                write(data)


@pytest.mark.parametrize("way", ["configuration", "environment"])
def test_a_proxy_jump_is_used(tmp_path: Path, start: Callable[..., SshServer], way: str) -> None:
    server = start(ed25519(tmp_path, "key"))
    bastion = Bastion(server.port)
    entrance = start(ed25519(tmp_path, "bastion_key"), interface=bastion)
    ed25519(tmp_path, "user_key")
    ssh = behind_ssh_configuration(
        tmp_path,
        ("Host inside.invalid\n  ProxyJump bastion\n" if way == "configuration" else "")
        + f"Host bastion\n  HostName 127.0.0.1\n  Port {entrance.port}\n  IdentityFile {tmp_path}/user_key\n"
        f"  StrictHostKeyChecking no\n  UserKnownHostsFile {tmp_path}/known_bastions\n",
    )
    settings = {"ANSIBLE_SSH_COMMON_ARGS": "-J bastion"} if way == "environment" else {}
    host = variables(tmp_path, ansible_host="inside.invalid", ansible_port=2222)
    pins_behind_a_jump_host(tmp_path, server, host, ANSIBLE_SSH_EXECUTABLE=ssh, **settings)
    assert bastion.asked == [("inside.invalid", 2222)]


def test_a_jump_host_that_ignores_the_end_does_not_hold_a_deploy(tmp_path: Path, relay: tuple[str, SshServer]) -> None:
    """Under nohup SIGHUP, by which ssh ends its proxy, is ignored by all that is started."""
    command, server = relay
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        started = time.monotonic()
        host = variables(tmp_path, f'-o "{command}"', ansible_host="inside.invalid")
        pins_behind_a_jump_host(tmp_path, server, host)
        # The jump host goes on for as long as the server does.
        assert time.monotonic() - started < 60
    finally:
        signal.signal(signal.SIGHUP, previous)
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "relay.py") not in shown


def test_arguments_that_ssh_does_not_know_are_named(tmp_path: Path) -> None:
    code, text = play(tmp_path, variables(tmp_path, ansible_host="127.0.0.1"), ANSIBLE_SSH_COMMON_ARGS="-o Jump=x")
    assert code != 0 and "Traceback" not in text
    assert "gpu-3, ssh: expected ssh to accept its configuration and arguments" in text
    assert "Bad configuration option: jump" in text


def test_a_jump_host_that_does_not_answer_is_named(tmp_path: Path) -> None:
    proxy = '-o "ProxyCommand=/bin/false through bastion"'
    code, text = play(tmp_path, variables(tmp_path, proxy, ansible_host="inside.invalid"))
    assert code != 0
    assert "ssh goes through /bin/false through bastion: check that this machine may log in there" in text


def test_a_percent_sign_in_the_path_is_read_back() -> None:
    arguments = ["-o", "UserKnownHostsFile=/keys/50%%/known_hosts", "-o", "HostKeyAlias=i-1"]
    assert host_keys.SshClient("ssh", arguments, "x").own_known_hosts() == ("/keys/50%/known_hosts", "i-1")


def test_a_play_names_the_file_that_cannot_be_written(tmp_path: Path, start: Callable[..., SshServer]) -> None:
    server = start(ed25519(tmp_path, "key"))
    (tmp_path / "known").mkdir()  # a folder where the file should be: no user can write that, root included
    code, text = play(tmp_path, variables(tmp_path, ansible_host="127.0.0.1", ansible_port=server.port))
    assert code != 0 and "Traceback" not in text
    assert f"gpu-3, ssh: expected to keep host keys in {tmp_path}/known, found that it cannot" in text
    assert "set known_hosts_file" in text

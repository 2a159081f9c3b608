"""Build a signed apt repository of small packages, with the names and versions of a vendor's, in the folder given.

Runs on a test host. The packages hold stand-ins: what is tested is which of them a role takes, in which version. The
list comes as JSON on standard input: [{name, version, depends, files: {path: text}, unpack, postinst}]; files below a
bin folder are executable. ``unpack`` names packages of the distribution whose files the package carries, ``postinst``
is its script. A second argument is the origin that the Release file names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def build(package: dict, folder: Path) -> None:
    tree = folder / "trees" / f"{package['name']}_{package['version']}"
    control = tree / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    lines = [
        f"Package: {package['name']}",
        f"Version: {package['version']}",
        "Architecture: all",
        "Maintainer: Nobody <nobody@example.com>",
        f"Description: stand-in for {package['name']}",
    ]
    if package.get("depends"):
        lines.insert(3, f"Depends: {package['depends']}")
    control.write_text("\n".join([*lines, ""]), encoding="utf-8")
    for name in package.get("unpack", []):
        subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
        for deb in folder.glob(f"{name}_*.deb"):
            subprocess.run(["dpkg-deb", "--extract", str(deb), str(tree)], check=True)
            deb.unlink()
    if package.get("postinst"):
        (tree / "DEBIAN/postinst").write_text(package["postinst"], encoding="utf-8")
        (tree / "DEBIAN/postinst").chmod(0o755)
    for name, text in package.get("files", {}).items():
        path = tree / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if "/bin/" in name else 0o644)
    # Not compressed: for 200 MB of Docker that takes minutes of processor time.
    build = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(folder / "pool")]
    subprocess.run(build, check=True)


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "pool").mkdir(parents=True)
    for package in json.load(sys.stdin):
        build(package, folder)
    origin = ["-o", f"APT::FTPArchive::Release::Origin={sys.argv[2]}"] if len(sys.argv) > 2 else []
    for name, argv in (("Packages", ["packages", "pool"]), ("Release", [*origin, "release", "."])):
        made = subprocess.run(["apt-ftparchive", *argv], cwd=folder, check=True, capture_output=True)
        (folder / name).write_bytes(made.stdout)
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--yes"]
    identity = "Test vendor <vendor@example.com>"
    subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", identity, "rsa2048", "sign", "1d"], check=True)
    subprocess.run([*gpg, "--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release")], check=True)
    subprocess.run([*gpg, "--armor", "--output", str(folder / "key.asc"), "--export", identity], check=True)


if __name__ == "__main__":
    main()

# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_packages
short_description: Install the packages that are missing, and nothing else
version_added: 0.1.0
description:
  - Compares the required packages with what dpkg has and installs only what is missing, in one call. A host that has
    all of them costs one quick look, without touching apt's lists or locks. Upgrades only packages in O(upgrade).
  - Reads what apt is going to do before it is done, and refuses what nobody asked for. That is a package that would be
    removed, lowered or changed although it is held, a version other than the pinned one, and boot images that /boot has
    no room for.
  - Finishes what dpkg was interrupted in. Goes on with a warning that names their files where sources of apt cannot be
    read from which nothing is needed.
  - Waits for the locks of apt and dpkg, and keeps needrestart from restarting services, so that a container engine
    under load is not restarted by an unrelated package.
  - Works in check mode on a fresh host, which M(ansible.builtin.apt) does only where python3-apt is there.
  - For Debian and Ubuntu.
author: glm.fleet contributors !UNKNOWN
options:
  names:
    description:
      - Packages that must be installed, in any version that satisfies O(minimum_versions).
      - Alternatives are written as dpkg writes them, V(chrony | ntpsec). Any of them will do; the first is installed
        where there is none.
    type: list
    elements: str
    required: true
  removes:
    description: Packages that others replace, in the same call of apt. Removed only when those are installed.
    type: list
    elements: str
    default: []
  may_remove:
    description:
      - Shell patterns of packages that apt may remove, or change to a lower version, for what is installed. They are
        the rest of a family that moves together, such as the libraries of the driver before.
      - Holds of this module on them are ended meanwhile.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  minimum_versions:
    description:
      - Lowest version of a package, as dpkg compares versions. Refused before anything is installed when the archive's
        version is lower, or when an installed one is.
    type: dict
    default: {}
  upgrade:
    description:
      - Packages among O(names) to change to the version that apt prefers, also to a lower one, if another is installed.
        A hold of this module (C(/etc/glm/held-packages)) is ended meanwhile; one of others is refused.
    type: list
    elements: str
    default: []
  pins:
    description:
      - Versions that packages among O(names) have to be installed in, by the first entry that has a package's name.
        Refused before anything is installed when apt would take another, which a preference allows where no source has
        the wanted one.
    type: list
    elements: dict
    default: []
    suboptions:
      packages:
        description: Shell patterns of names, separated by spaces.
        type: str
        required: true
      version:
        description: Shell pattern of the version.
        type: str
        required: true
    version_added: 0.2.0
  origins:
    description:
      - Origin (of the Release file) that a package has to come from. Refused before anything is installed when apt
        would take it from elsewhere, and when it is installed from elsewhere.
    type: dict
    default: {}
  hold:
    description: Hold the packages, so that neither people nor unattended upgrades change them by accident.
    type: bool
    default: false
  hold_installed:
    description: Shell patterns of further packages to hold, those of them that are installed.
    type: list
    elements: str
    default: []
  hold_for:
    description:
      - Shell patterns of packages that are the reason for O(hold_installed). Nothing is held where none is installed.
      - Empty holds always.
    type: list
    elements: str
    default: []
  refresh_after:
    description: Refresh apt's lists before an installation when they are older than this many seconds.
    type: int
    default: 3600
  lock_timeout:
    description: Seconds to wait for each lock of apt and dpkg that others have.
    type: int
    default: 300
  timeout:
    description: Seconds that the installation may take.
    type: int
    default: 1200
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Reports what is missing.
  diff_mode:
    support: full
    details: Shows the packages and their versions.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Install what the role needs
  glm.fleet.host_packages:
    names: [ca-certificates, curl]

- name: Install a Docker engine that has CDI
  glm.fleet.host_packages:
    names: [docker.io, docker-cli]
    minimum_versions:
      docker.io: "25"

- name: Install a time daemon, and hold the kernel that a driver's module is built for
  glm.fleet.host_packages:
    names: [systemd-timesyncd | chrony | ntpsec]
    hold_installed: [linux-image-*, linux-headers-*]
    hold_for: [nvidia*-dkms*, amdgpu-dkms]
"""

RETURN = r"""
missing:
  description: Packages that were not installed before, or whose version was to be changed.
  returned: always
  type: list
  elements: str
held:
  description: Packages that this call put on hold (or would, in check mode).
  returned: always
  type: list
  elements: str
versions:
  description: Version of every required package after the run (before it, in check mode).
  returned: always
  type: dict
phase:
  description: What failed.
  returned: failure
  type: str
  sample: packages
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import apt_plan
from ansible_collections.glm.fleet.plugins.module_utils.host.apt import (
    Policy,
    parse_origins,
    parse_policies,
    present,
    strangers,
)
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult, run, which
from ansible_collections.glm.fleet.plugins.module_utils.host.dpkg import installed_packages, lock_holder
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

LISTS = Path("/var/lib/apt/lists")
HOLDS = Path("/etc/glm/held-packages")
# A word in it: an earlier release, which did not write its holds down, has prepared this host.
EARLIER = "#earlier-release"
FOLDER = Path("/etc/apt")
BOOT = Path("/boot")
# What changes a configuration file that a person has changed.
KEEP = ("--force-confdef", "--force-confold")
# The words of apt, and of dpkg itself.
LOCKED = ("Could not get lock", "Unable to lock", "locked by another process")
# Whoever changes packages has it from the first to the last of them.
LOCK = Path("/var/lib/dpkg/lock-frontend")
LOCK_POLL_SECONDS = 2
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "APT_LISTCHANGES_FRONTEND": "none"}


def recorded_holds() -> set[str]:
    """Packages that this module holds. Whoever else holds one has a reason of their own."""
    return {*files.read_text(HOLDS).split()}


def installed_versions(names: list[str]) -> dict[str, str]:
    """Version of each installed package among ``names``."""
    # Without a pattern dpkg lists all packages.
    found = installed_packages(tuple(names)) if names else {}
    return {name: row["version"] for name, row in found.items()}


def resolve(name: str, installed: dict[str, str]) -> str:
    """The package that stands for ``a | b``: the first that is installed, else the first."""
    choices = [choice.strip() for choice in name.split("|")]
    return next((choice for choice in choices if choice in installed), choices[0])


def policies(names: Iterable[str]) -> dict[str, Policy]:
    """What apt knows of each package, by name; a package that it does not know is absent."""
    wanted = tuple(names)
    return parse_policies(run(("apt-cache", "policy", *wanted)).stdout) if wanted else {}


def half_done() -> list[str]:
    """Packages that dpkg was interrupted in, with their states."""
    shown = run(("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n")).stdout
    rows = (line.split() for line in shown.splitlines())
    return [f"{row[0]} {row[1]}" for row in rows if len(row) == 2 and row[1] in apt_plan.HALF_DONE]


def is_lower(version: str, minimum: str) -> bool:
    return run(("dpkg", "--compare-versions", version, "lt", minimum)).ok


def lists_age() -> float:
    """Seconds since apt's lists were refreshed; without lists, a very long time."""
    newest = max((path.stat().st_mtime for path in LISTS.glob("*_Packages*")), default=0.0)
    return time.time() - newest


class Installer:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        choices = [choice.strip() for name in module.params["names"] for choice in name.split("|")]
        self.before = installed_versions(choices) if which("dpkg-query") else {}
        self.names = list(dict.fromkeys(resolve(name, self.before) for name in module.params["names"]))
        self.minimum = module.params["minimum_versions"]

    def run(self) -> dict[str, Any]:
        if not which("dpkg-query") or not which("apt-get"):
            raise Unmet(
                "a distribution with apt (Debian, Ubuntu)", "none", f"install these yourself: {', '.join(self.names)}"
            )
        before = {name: version for name, version in self.before.items() if name in self.names}
        missing = [name for name in self.names if name not in before] + self.outdated(before)
        for name, version in before.items():
            self.require_minimum(name, version, "installed")
        self.require_origins({name: version for name, version in before.items() if name not in missing})
        if not self.module.check_mode:
            self.inherit()
        if missing and not self.module.check_mode:
            self.install(missing)
        after = before if self.module.check_mode else installed_versions(self.names)
        held = self.hold()
        return {
            "changed": bool(missing or held),
            "missing": missing,
            "held": held,
            "versions": after,
            "diff": {"before": self.describe(before), "after": self.describe(after, missing)},
        }

    def outdated(self, before: dict[str, str]) -> list[str]:
        """Installed packages whose version has to change."""
        known = policies(name for name in self.module.params["upgrade"] if name in before)
        return [name for name, policy in known.items() if policy["candidate"] not in ("", before[name])]

    def require_origins(self, versions: dict[str, str]) -> None:
        """Refuse versions that come from another origin than they have to."""
        wanted = {name: origin for name, origin in self.module.params["origins"].items() if name in versions}
        if not wanted:
            return
        known = policies(wanted)
        origins = parse_origins(run(("apt-cache", "policy")).stdout)
        for name, origin in wanted.items():
            sources = strangers(known[name], origins, origin, versions[name]) if name in known else []
            if sources:
                raise Unmet(
                    f"{name} from {origin}",
                    f"{versions[name]} of {origins[sources[0]] or sources[0]}. Nothing was changed",
                    f"remove that package, or look at apt-cache policy {name}",
                )

    def inherit(self) -> None:
        """Write down the holds of an earlier release, which held what this one holds."""
        known = recorded_holds()
        left = files.read_text(FOLDER / "apt.conf.d/60glm-fleet")
        # gpu_base of this release names the file in there.
        ours = {EARLIER} if left and str(HOLDS) not in left and not HOLDS.exists() else {*known}
        if EARLIER in ours:
            wanted = self.to_hold() | {*self.module.params["removes"]}
            ours |= wanted & {*run(("apt-mark", "showhold")).stdout.split()}
        if ours != known:
            self.record(ours)

    def to_hold(self) -> set[str]:
        """What this call holds."""
        wanted = {*self.names} if self.module.params["hold"] else set()
        reasons = self.module.params["hold_for"]
        if self.module.params["hold_installed"] and (not reasons or installed_versions(reasons)):
            wanted |= {*installed_versions(self.module.params["hold_installed"])}
        return wanted

    def hold(self) -> list[str]:
        """Hold what is to be held and is not yet; the names of these."""
        wanted = self.to_hold()
        if not wanted:
            return []
        loose = sorted(wanted - {*run(("apt-mark", "showhold")).stdout.split()})
        if loose and not self.module.check_mode:
            self.checked(("apt-mark", "hold", *loose), f"holding {', '.join(loose)}")
            self.record({*loose} | recorded_holds())
        return loose

    def record(self, names: set[str]) -> None:
        files.write_text(HOLDS, "".join(f"{name}\n" for name in sorted(names)), files.READABLE)

    def loosened(self, changed: set[str]) -> list[str]:
        """Holds of our own that are in the way of a change. Refuses where others hold what is to be changed."""
        held, ours = {*run(("apt-mark", "showhold")).stdout.split()}, recorded_holds()
        foreign = sorted((changed & held) - ours)
        if foreign:
            raise Unmet(
                f"no hold of others on {', '.join(sorted(changed))}, which are to be changed",
                f"a hold on {', '.join(foreign)} that is not of this collection. Nothing was changed",
                f"apt-mark unhold {' '.join(foreign)} on the host, if that hold is yours to end; then run this again",
            )
        patterns = [*self.module.params["hold_installed"], *self.module.params["may_remove"]]
        family = changed | {*self.names} | {*installed_versions(patterns)}
        return sorted(family & held & ours)

    def describe(self, versions: dict[str, str], wanted: Iterable[str] = ()) -> str:
        rows = dict.fromkeys(wanted, "(not installed)")
        rows.update(versions)
        return "".join(f"{name} {rows[name]}\n" for name in sorted(rows))

    def require_minimum(self, name: str, version: str, state: str) -> None:
        minimum = self.minimum.get(name)
        if minimum and is_lower(version, str(minimum)):
            raise Unmet(
                f"{name} {minimum} or newer",
                f"{version} ({state}). Nothing was changed",
                "use a newer distribution or image, or add an apt source that has it",
            )

    def install(self, missing: list[str]) -> None:
        self.wait()
        self.finish()
        lock = ("-o", f"DPkg::Lock::Timeout={self.module.params['lock_timeout']}")
        lost = self.refresh(lock) if lists_age() > self.module.params["refresh_after"] else {}
        known = policies(missing)
        candidates = {name: known[name]["candidate"] if name in known else "" for name in missing}
        for name, version in candidates.items():
            if not version:
                raise Unmet(
                    f"apt to know {name}",
                    f"no source of this host that has it{_beside(lost)}",
                    "check /etc/apt on the host, or remove it from the list of packages",
                )
            self.require_minimum(name, version, "in the archive")
        self.require_origins(candidates)
        apt_plan.require_pinned(known, self.module.params["pins"])
        self.require_read(known, lost)
        keep = tuple(word for option in KEEP for word in ("-o", f"Dpkg::Options::={option}"))
        what = ", ".join(missing)
        replaced = [*installed_versions(self.module.params["removes"])]
        upgrade = self.module.params["upgrade"]
        family = self.module.params["may_remove"]
        moves = upgrade or family or self.module.params["removes"]
        loosened = self.loosened({*missing, *replaced}) if moves else []
        words = ("--yes", "--no-install-recommends", "--allow-downgrades" if moves else "--no-upgrade", "install")
        # apt takes "name-" for a package to remove.
        names = (*missing, *(f"{name}-" for name in replaced))
        # Holds of our own still stand while it is simulated.
        past = ("--allow-change-held-packages",) if loosened else ()
        simulated = run(("apt-get", "--simulate", *past, *words, *names), self.module.params["timeout"], ENVIRONMENT)
        # What stands in the way of a plan that fails is often a hold; apt names the package and not why.
        named = [] if simulated.ok else sorted({word for word in simulated.stdout.split() if word[:1].isalnum()})
        held = [name for name, row in installed_packages(tuple(named)).items() if row["held"]] if named else []
        steps = apt_plan.check(simulated, what, [*replaced, *family], [*upgrade, *family], held)
        self.require_free(steps, {*replaced, *missing, *loosened})
        apt_plan.require_room(steps, BOOT)
        self.changed_with(loosened, ("apt-get", *lock, *keep, *words, *names), f"installing {what}")

    def changed_with(self, loosened: list[str], argv: tuple[str, ...], what: str) -> None:
        """Run apt while holds of our own are off; what is still there is held again, also when apt fails."""
        if loosened:
            self.checked(("apt-mark", "unhold", *loosened), f"ending the hold on {', '.join(loosened)}")
        try:
            # What others hold it does not change by itself.
            self.checked(argv, what)
        finally:
            again = [*installed_versions(loosened)]
            if again:
                self.checked(("apt-mark", "hold", *again), f"holding {', '.join(again)}")
            if loosened:
                self.record(recorded_holds() - ({*loosened} - {*again}))

    def wait(self) -> None:
        """Wait until nobody changes packages: what is half done meanwhile is theirs, and a simulation takes no lock."""
        deadline = time.monotonic() + self.module.params["lock_timeout"]
        while (holder := lock_holder(LOCK)) is not None:
            if time.monotonic() >= deadline:
                raise Unmet(
                    f"{LOCK} to be free within {self.module.params['lock_timeout']} s",
                    f"that {holder} holds it. Nothing was changed",
                    "wait until it has finished, then run this again",
                )
            time.sleep(LOCK_POLL_SECONDS)

    def finish(self) -> None:
        """Have dpkg finish what it was interrupted in: nothing can be installed before."""
        if not half_done():
            return
        done = self.patient(("dpkg", *KEEP, "--configure", "--pending"))
        left = half_done()
        if left:
            name = left[0].partition(" ")[0]
            raise Unmet(
                "dpkg to have finished with every package",
                f"{', '.join(left)}: {done.evidence(1200)}",
                f"fix {name} (of a kernel module, the end of /var/lib/dkms/*/*/build/make.log says why), or remove it "
                f"(apt-get remove {name}); then run this again",
            )

    def refresh(self, lock: tuple[str, ...]) -> dict[str, str]:
        """Refresh apt's lists. The sources that apt refuses, address to words; the lists of all others are fresh."""
        done = self.patient(("apt-get", *lock, "update"))
        # A source that does not answer is none of them: apt goes on with its old lists.
        lost = {} if done.ok else apt_plan.unread(done.stderr)
        if lost is None:
            raise self.failed(done, "refreshing apt's lists")
        sources = present(FOLDER)
        for address, words in lost.items():
            file = apt_plan.whose(address, sources)
            advice = f"fix or remove that source, which is in {file}; this run goes on where nothing of it is needed"
            self.module.warn(f"packages: {unmet('every apt source to be readable', words, advice)}")
        return lost

    def require_read(self, known: dict[str, Policy], lost: dict[str, str]) -> None:
        """Refuse packages that only a source has that could not be read: its old lists name files that are gone."""
        sources = present(FOLDER) if lost else []
        wanting = apt_plan.needed(known, lost, sources)
        if wanting:
            files = {apt_plan.whose(address, sources) for address in lost}
            raise Unmet(
                f"a source that can be read for {', '.join(wanting)}",
                f"only {', '.join(sorted(files))}: {'; '.join(lost.values())}. Nothing was changed",
                "fix that source on the host, then run this again",
            )

    def require_free(self, steps: apt_plan.Plan, asked: set[str]) -> None:
        """Refuse to change what somebody holds and nobody named."""
        changed = (*(row.name for row in steps.installs if row.old), *steps.removes)
        found = installed_packages(changed) if changed else {}
        apt_plan.require_free(steps, {name: row["held"] for name, row in found.items()}, asked)

    def patient(self, argv: tuple[str, ...]) -> CommandResult:
        """Run apt or dpkg; wait for the locks that DPkg::Lock::Timeout does not cover: of apt's lists, dpkg's own."""
        deadline = time.monotonic() + self.module.params["lock_timeout"]
        while True:
            done = run(argv, self.module.params["timeout"], ENVIRONMENT)
            if done.ok or not any(words in done.stderr for words in LOCKED) or time.monotonic() >= deadline:
                return done
            time.sleep(LOCK_POLL_SECONDS)

    def checked(self, argv: tuple[str, ...], what: str) -> None:
        done = self.patient(argv)
        if not done.ok:
            raise self.failed(done, what)

    def failed(self, done: CommandResult, what: str) -> Unmet:
        return Unmet(
            "apt to work",
            f"that {what} failed with {done.rc}: {done.evidence(1200)}",
            "fix apt on the host, then run this again",
            rc=done.rc,
            stdout=done.stdout,
            stderr=done.stderr,
        )


def _beside(lost: dict[str, str]) -> str:
    return f", and sources that cannot be read: {'; '.join(lost.values())}" if lost else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "minimum_versions": {"type": "dict", "default": {}},
            "removes": {"type": "list", "elements": "str", "default": []},
            "may_remove": {"type": "list", "elements": "str", "default": []},
            "upgrade": {"type": "list", "elements": "str", "default": []},
            "pins": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "packages": {"type": "str", "required": True},
                    "version": {"type": "str", "required": True},
                },
            },
            "origins": {"type": "dict", "default": {}},
            "hold": {"type": "bool", "default": False},
            "hold_installed": {"type": "list", "elements": "str", "default": []},
            "hold_for": {"type": "list", "elements": "str", "default": []},
            "refresh_after": {"type": "int", "default": 3600},
            "lock_timeout": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 1200},
        },
        supports_check_mode=True,
    )
    end(module, "packages", Installer(module).run)


if __name__ == "__main__":
    main()

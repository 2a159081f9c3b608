#!/bin/sh
# Install what rehearsals and integration tests need from the distribution: a container engine that boots systemd
# hosts, tools that build their root file systems, a local image registry, a browser that opens the benchmark's report,
# a certificate authority (pebble) with the client that asks it (certbot), and a proxy. Debian and Ubuntu only.
#
# Safe to repeat: if everything is installed it changes nothing, asks for no password and needs no network.
set -eu

# podman and runc run the hosts (crun cannot set limits where CAP_SYS_RESOURCE is missing); netavark, aardvark-dns,
# slirp4netns, passt-style helpers, fuse-overlayfs and uidmap are what rootless and bridged networks need.
packages="
ca-certificates
certbot
chromium
debian-archive-keyring
docker-registry
fonts-dejavu-core
fuse-overlayfs
haproxy
iproute2
iptables
mmdebstrap
openssh-client
pebble
podman
runc
skopeo
slirp4netns
squid
uidmap
util-linux
"

# Prints the id of the network stack package that this release of podman uses.
network_packages() {
  if apt-cache show netavark >/dev/null 2>&1; then
    echo "netavark aardvark-dns"
  else
    echo "containernetworking-plugins"
  fi
}

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
  name=$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-}") || name=""
  echo "install_system_packages: expected Debian or Ubuntu, found ${name:-an unknown system} without apt-get." >&2
  echo "Install the equivalents of these packages by hand, then continue:" $packages >&2
  exit 1
fi

missing=""
new_services=""
is_installed docker-registry || new_services="docker-registry.service"
is_installed squid || new_services="$new_services squid.service"
for package in $packages; do
  is_installed "$package" || missing="$missing $package"
done
if ! is_installed netavark && ! is_installed containernetworking-plugins; then
  missing="$missing network-stack"
fi
if [ -z "$missing" ]; then
  exit 0
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "install_system_packages: these packages are missing:$missing. Run this script as root, or install sudo." >&2
    exit 1
  fi
  as_root="sudo"
fi

echo "install_system_packages: installing$missing"
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
case " $missing " in
  *" network-stack "*) missing=$(echo "$missing" | sed "s/network-stack/$(network_packages)/") ;;
esac
# Word splitting is intended here: one argument for each package.
# needrestart would restart services that were here before.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=300 \
  install --no-install-recommends $missing

# These packages start a service on a port of every address; rehearsals run their own, bound to the bridge. One that was here
# before belongs to the machine: it stays as it is.
if command -v systemctl >/dev/null 2>&1; then
  for service in $new_services; do
    $as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
  done
fi

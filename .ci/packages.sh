#!/usr/bin/env bash
# Installs what building and testing need on Debian or Ubuntu; quick where everything is there already.
set -euo pipefail
packages=(g++ cmake ninja-build ccache pkg-config python3 python3-venv
  libfmt-dev libyaml-cpp-dev libhdf5-dev nlohmann-json3-dev libutf8proc-dev zlib1g-dev libzstd-dev libxxhash-dev libcurl4-openssl-dev libsqlite3-dev
  libopenblas-openmp-dev libopenmpi-dev openmpi-bin libgtest-dev)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "packages.sh: no apt-get here; install the equivalents of: ${missing[*]}" >&2; exit 1; }
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "packages.sh: run as root or install sudo; missing: ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

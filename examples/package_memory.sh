#!/usr/bin/env bash
# mem.db in the current folder: a memory of this machine's package index. af_synth must be in PATH.
set -euo pipefail
apt-cache dumpavail >index.txt 2>/dev/null || true
if [ "$(wc -c <index.txt)" -lt 1000000 ]; then  # a machine whose package lists were never fetched
  if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
  apt-cache dumpavail >index.txt
fi
af_synth memory --debian-index index.txt --output mem.db
rm index.txt

#!/bin/bash
# The comparison with PyTorch and transformers: tests/oracle/run.sh PYTHON BUILD_DIR
# PYTHON has what tests/oracle/requirements.txt pins. Writes below BUILD_DIR/oracle only.
set -euo pipefail
python=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
export HF_HUB_OFFLINE=1 HF_HOME="$build/oracle/hf_home" PYTHONDONTWRITEBYTECODE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
mkdir -p "$build/oracle"
rm -rf "$build/oracle/models" "$build/oracle/out"
"$python" "$here/make_models.py" "$build/oracle/models"
"$python" "$here/compare.py" "$build/oracle/models" "$build" "$build/oracle/out"

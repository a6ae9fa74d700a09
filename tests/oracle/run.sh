#!/bin/bash
# The comparison with PyTorch, transformers, tokenizers and tensorboard: tests/oracle/run.sh PYTHON BUILD_DIR
# PYTHON has what tests/oracle/requirements.txt pins. Writes below BUILD_DIR/oracle only.
set -euo pipefail
python=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
export HF_HUB_OFFLINE=1 HF_HOME="$build/oracle/hf_home" PYTHONDONTWRITEBYTECODE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
mkdir -p "$build/oracle"
rm -rf "$build/oracle/models" "$build/oracle/out"
"$python" "$here/make_models.py" "$build/oracle/models"
status=0
{
  "$python" "$here/tokenizer_compare.py" "$build" "$build/oracle/tokenizer" || status=1
  "$python" "$here/compare.py" "$build/oracle/models" "$build" "$build/oracle/out" || status=1
  "$python" "$here/runs.py" "$build" "$build/oracle/runs" || status=1
  "$python" "$here/generation.py" "$build/oracle/models" "$build" "$build/oracle/generation" || status=1
  exit $status
} | awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5; next }
  { print; fflush() }
  END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }'

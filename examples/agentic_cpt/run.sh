#!/usr/bin/env bash
# Agentic continual pre-training from end to end, on two cores: a memory of real facts, FAS and HAS samples, a tokenizer, both stages, and
# whether the model chooses better actions for entities that it has never seen: untrained, after stage 1, after stage 2.
# Run it again: what is done is not done again.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD here=$PWD/examples/agentic_cpt out=$PWD/examples/agentic_cpt/out
step() { printf '\n== %s (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # on a machine that others use too, threads that wait should sleep

step "1. packages and build"
.ci/packages.sh
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
cmake --preset cpu >/dev/null
cmake --build --preset cpu --target af_train af_data af_synth af_eval
export PATH=$root/build/cpu/bin:$PATH
SECONDS=0

mkdir -p "$out"
cd "$out"
step "2. memory, FAS, HAS, tokenizer, tokens"
"$here/data.sh"
step "3. the plan"
af_train "$here/agentic_cpt.yaml" --dry-run | grep -E '^parameters|^stage|^  length|^memory'

evaluate() { # NAME MODEL...
  local name=$1
  shift
  [ -e "$name.json" ] || af_eval likelihood "$@" --tokenizer tokenizer --input heldout.jsonl heldout_fas.jsonl --json "$name.json"
}
step "4. before training"
evaluate untrained --random "$here/agentic_cpt.yaml"
for stage in stage1 stage2; do
  step "5. $stage"
  if [ ! -e $stage.json ]; then
    af_train "$here/agentic_cpt.yaml" --stage $stage
    evaluate $stage --checkpoint run/checkpoints
  fi
done
step "6. what was learnt"
python3 "$here/results.py" untrained.json stage1.json stage2.json

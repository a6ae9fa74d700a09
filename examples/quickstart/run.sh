#!/usr/bin/env bash
# From nothing to a model in Hugging Face's format: installs, builds, makes data, trains both stages, exports.
# Run it again: what is done is not done again.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD here=$PWD/examples/quickstart out=$PWD/examples/quickstart/out
step() { printf '\n== %s\n' "$*"; }

export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # on a machine that others use too, threads that wait should sleep

step "1. packages and build"
.ci/packages.sh
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
cmake --preset cpu >/dev/null
cmake --build --preset cpu --target af_train af_data af_synth af_checkpoint
export PATH=$root/build/cpu/bin:$PATH

step "2. data: a memory of this machine's package index, questions and trajectories made of it, as tokens"
mkdir -p "$out"
cd "$out"
if [ ! -e heldout.h5 ]; then
  rm -f mem.db
  "$root/examples/package_memory.sh"
  af_synth fas --teacher offline --memory mem.db --split train --count 2000 --output fas.jsonl
  af_synth has --teacher offline --memory mem.db --split train --count 600 --options 2..3 --most-bytes 3000 --output has.jsonl
  af_synth has --teacher offline --memory mem.db --split train --count 150 --options 4..6 --most-bytes 12000 --seed 2 --output has_long.jsonl
  af_synth has --teacher offline --memory mem.db --split heldout --count 60 --options 2..3 --most-bytes 3000 --output heldout.jsonl
  for source in fas has has_long heldout; do
    af_data tokenize --tokenizer bytes --input $source.jsonl --output $source.h5
  done
fi
baseline=$(af_data inspect has.h5 --bigram heldout.h5 | tail -n 1)
echo "$baseline"

step "3. the plan"
af_train "$here/quickstart.yaml" --dry-run

step "4. training, both stages"
af_train "$here/quickstart.yaml"

step "5. export for transformers, vLLM, SGLang"
if [ ! -e hf/config.json ]; then af_checkpoint export-hf run/checkpoints/latest hf; fi
ls -l hf

python3 - "$baseline" <<'PYTHON'
import json, re, sys
lines = [json.loads(line) for line in open("run/metrics.jsonl")]
heldout = [line for line in lines if line.get("event") == "validation"]
bigram = float(re.search(r"([0-9.]+) nats", sys.argv[1]).group(1))
steps = [line for line in lines if "lm_loss" in line and "event" not in line]
print(f"""
== done
trained {steps[-1]['consumed_tokens']:,} tokens in {steps[-1]['iteration']} iterations, {sum(s['iteration_time_ms'] for s in steps) / 1e3:.0f} s
held-out loss, nats per token (the bigram model: {bigram:.3f}):""")
for line in heldout:
    print(f"  {line['stage']} iteration {line['iteration']:5d}  {line['lm_loss']:.3f}")
print("""
what to look at next, in examples/quickstart/out:
  run/metrics.jsonl        every step; run/checkpoints/latest is the newest checkpoint
  hf/                      transformers.AutoModelForCausalLM.from_pretrained("hf")
what to do next:
  af_train ../quickstart.yaml output_dir=run2 stages.0.lr.lr=1e-3     another learning rate
  af_train YOURS.yaml --dry-run                                       will it fit, how long will it take
  af_data tokenize --help                                             your own documents
  ../../agentic_cpt/run.sh                                            does it choose better actions afterwards?""")
if heldout[-1]["lm_loss"] >= bigram:
    sys.exit("the held-out loss does not beat the bigram model")
PYTHON

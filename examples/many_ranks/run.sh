#!/usr/bin/env bash
# A cluster's layout on one machine: run.sh [RANKS] (default 256; a multiple of 64), then the same on one process, and compares the losses.
# Needs the built programs (cmake --workflow --preset cpu) and some 5 GB of memory for 256 ranks. Writes to examples/many_ranks/out.
set -euo pipefail
cd "$(dirname "$0")"
ranks=${1:-256}
bin=$PWD/../../build/cpu/bin
mkdir -p out && cd out
cat ../../../README.md ../../../ARCHITECTURE.md ../../../CONTRIBUTING.md >docs.txt
"$bin/af_data" tokenize --tokenizer bytes --input docs.txt --output docs.h5
rm -rf many one
# Ranks that share cores must not bind to any; ob1 over shared memory starts fastest; a niced rank leaves the core to mpirun, which is
# still starting the others.
export OMP_NUM_THREADS=1
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
time nice -n 10 mpirun --oversubscribe --bind-to none --mca pml ob1 --mca btl self,vader -np "$ranks" \
  "$bin/af_train" ../many_ranks.yaml output_dir=many
"$bin/af_train" ../many_ranks.yaml output_dir=one parallel={} >one.log
python3 - <<'PYTHON'
import json
steps = {d: [s for s in map(json.loads, open(d + "/metrics.jsonl")) if "grad_norm" in s] for d in ("many", "one")}
for many, one in zip(steps["many"], steps["one"], strict=True):
    loss, norm = (abs(many[k] - one[k]) / one[k] for k in ("lm_loss", "grad_norm"))
    print(f"{many['stage']} iteration {many['iteration']}: loss {many['lm_loss']:.7f} and {one['lm_loss']:.7f} on one process, "
          f"gradient norm {many['grad_norm']:.6f} and {one['grad_norm']:.6f}")
    assert loss <= 1e-5 and norm <= 1e-4 and many["consumed_tokens"] == one["consumed_tokens"], "the layout changes the numbers"
print("the layout gives one process's numbers")
PYTHON

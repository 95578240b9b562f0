#!/usr/bin/env bash
# Fuzzes every target in turn: .ci/fuzz.sh SECONDS [NAME...]. The engine is libFuzzer, built from bolero's sources, on stable Rust: it
# sees which code an input reaches. Inputs that reach something go to CORPUS/NAME, those that fail to CORPUS/NAME/crashes.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
corpus=${CORPUS:-$target_dir/corpus}
export CARGO_TARGET_DIR=$target_dir
export RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Ccodegen-units=1"

# The test binaries and the targets in them, a line for each: binary, test.
targets() {
  local package kind name
  while read -r package kind name; do
    local binary
    binary=$(cargo test --locked --target "$host" -p "$package" $kind --no-run --message-format=json 2>/dev/null |
      sed -n 's/.*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    [ -x "$binary" ] || { echo "the fuzz targets of $package were not built: cargo test -p $package $kind --no-run" >&2; exit 1; }
    # The names are those of the source: asked for a list, every target would start to fuzz.
    grep -oE '^fn (fuzz_[a-z_]+)\(' "$name" | sed 's/fn \(.*\)(/\1/' | while read -r test; do echo "$binary $test"; done
  done <<'PACKAGES'
quantum --lib dataplane/quantum/src/fuzz_tests.rs
quantum-grpc --lib dataplane/grpc/src/mapping/fuzz_tests.rs
quantum-sim --test=fuzz_connection dataplane/sim/tests/fuzz_connection.rs
PACKAGES
}

failed=0
list=$(targets)
while read -r binary test; do
  if [ $# -gt 0 ] && [[ " $* " != *" $test "* ]]; then continue; fi
  mkdir -p "$corpus/$test/crashes"
  echo "== $test for $seconds s; corpus in $corpus/$test"
  if ! BOLERO_LIBFUZZER_ARGS="$corpus/$test -artifact_prefix=$corpus/$test/crashes/ -max_total_time=$seconds -max_len=1500 -print_final_stats=1 -verbosity=0" \
    "$binary" "$test" --nocapture --test-threads=1 </dev/null >"$corpus/$test.log" 2>&1; then
    failed=1
    echo "FAILED: $test. The input is kept in $corpus/$test/crashes, the log is $corpus/$test.log"
    echo "Replay it: put the file into the folder __fuzz__/$test/crashes beside the target's source and run cargo test $test"
  fi
  grep -aE '^stat::(number_of_executed_units|new_units_added)' "$corpus/$test.log" || true
done <<<"$list"
[ $failed = 0 ] && echo "no target failed"
exit $failed

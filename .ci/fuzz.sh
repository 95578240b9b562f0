#!/usr/bin/env bash
# Fuzzes every target in turn: .ci/fuzz.sh SECONDS [NAME...]. The engine is bolero's random one, in the test binaries of `make test`. The
# log of a target that fails holds the smallest failing input that was found and the seed that replays it. As a file in
# __fuzz__/TARGET/corpus, beside the target's source, such an input is tried by every `make test` from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
logs=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
mkdir -p "$logs"
# Longer than any time: the time ends a run, not the count.
export BOLERO_RANDOM_ITERATIONS=1000000000000 BOLERO_RANDOM_TEST_TIME_MS=$((seconds * 1000))

failed=0
while read -r package kind source; do
  for target in $(grep -oE '^fn fuzz_[a-z_]+' "$source" | cut -d' ' -f2); do
    if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
    echo "== $target: $seconds s"
    if ! cargo test --locked -p "$package" "$kind" "$target" -- --nocapture </dev/null >"$logs/$target.log" 2>&1; then
      failed=1
      echo "FAILED: the input is kept in $logs/$target.log"
      grep -ao 'BOLERO_RANDOM_SEED=[0-9]*' "$logs/$target.log" | tail -1 |
        sed "s/.*/replay it by: & cargo test -p $package $kind $target/" || true
    elif ! grep -q '^test result: ok. 1 passed' "$logs/$target.log"; then
      failed=1
      echo "FAILED: $target did not run, see $logs/$target.log"
    fi
  done
done <<'PACKAGES'
quantum --lib dataplane/quantum/src/fuzz_tests.rs
quantum-shard --lib dataplane/shard/src/port/fuzz_tests.rs
quantum-grpc --lib dataplane/grpc/src/mapping/fuzz_tests.rs
aetherflow --lib control/src/statesync/text/fuzz_tests.rs
aetherflow-bench --lib bench/src/trace/fuzz_tests.rs
quantum-sim --test=fuzz_connection dataplane/sim/tests/fuzz_connection.rs
PACKAGES
if [ $failed = 0 ]; then echo "no target failed"; fi
exit $failed

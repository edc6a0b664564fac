#!/usr/bin/env bash
# The one test command: sets up what the tests need (tests/setup.sh), runs every test, and ends with a table and a line
# `N passed, N failed`. Exit status 0 only if everything passed.
#
#   bash tests/run.sh [--full] [--only rust|browser]
#
#   --full   the long versions of the tests too: all prompts, more tokens (FOREDRAFT_TEST_FULL=1), and applications built by
#            Vite and webpack, which are fetched
#   --only   one half: `rust` is checks and native tests, `browser` the wasm build and the browser tests
#
# CARGO_TARGET_DIR and FOREDRAFT_TEST_MODELS are honoured. With CI=true nothing may be skipped: a skipped test is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /p' "$0" | sed '$d;s/^# \{0,1\}//'; }

only=all
while [ $# -gt 0 ]; do
  case $1 in
    --full) export FOREDRAFT_TEST_FULL=1 ;;
    --only)
      only=${2:-}
      case $only in rust | browser) shift ;; *) echo "--only is '$only', expected rust or browser" >&2 && exit 2 ;; esac
      ;;
    -h | --help) usage && exit 0 ;;
    *) echo "unknown option '$1'; see --help" >&2 && exit 2 ;;
  esac
  shift
done

# shellcheck source=tests/setup.sh
. tests/setup.sh

case ${CI:-} in true | 1) ci=yes ;; *) ci= ;; esac
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# A hung test must end in a report: the whole budget for one part of the default run.
if [ -n "${FOREDRAFT_TEST_FULL:-}" ]; then part_limit=36000; else part_limit=3300; fi

logs=tests/out/logs
rm -rf "$logs"
mkdir -p "$logs"
table="" details="" passed=0 failed=0 skipped=0 part_failed=0 finished="" group="" watchdog=""

row() { table+=$(printf '%-34s %6s  %s' "$1" "$2" "$3")$'\n'; }

summary() {
  local status=$?
  trap - EXIT
  if [ -z "$finished" ]; then
    failed=$((failed + 1))
    row "(stopped early)" "" "FAILED: the rest did not run"
  fi
  printf '\n%-34s %6s  %s\n' part seconds result
  printf '%s' "$table"
  if [ -n "$details" ]; then printf '\n%s' "$details"; fi
  if [ "$skipped" -gt 0 ] && [ -n "$ci" ]; then
    failed=$((failed + 1))
    printf '\nCI=true and something was skipped: that is a failure\n'
  fi
  printf '\nlogs: %s   total: %d s\n' "$logs" "$SECONDS"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  if [ "$failed" -gt 0 ] && [ "$status" = 0 ]; then status=1; fi
  exit "$status"
}
trap summary EXIT
trap 'end_group && exit 130' INT
trap 'end_group && exit 143' TERM

# note PREFIX: lines of stdin into the details under the table.
note() {
  local line
  while IFS= read -r line; do details+="$1: $line"$'\n'; done
}

# Each counter reads a log and sets `good`, `bad` and `left_out`. One that finds no tests counts the part itself.
count_check() { good=0 bad=0 left_out=0; }

count_cargo() {
  read -r good bad left_out < <(awk '/^test result:/ { for (i = 2; i <= NF; i++) {
    if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) s += $(i-1) } }
    END { print p + 0, f + 0, s + 0 }' "$1")
  note "failed" < <(sed -n 's/^test \(.*\) \.\.\. FAILED.*/\1/p' "$1")
  note "skipped" < <(sed -n 's/^test \(.*\) \.\.\. ignored\(.*\)/\1\2/p' "$1")
}

# node:test, in either of its reports (`# pass 3` or `ℹ pass 3`).
count_node() {
  read -r good bad left_out < <(sed $'s/\x1b\\[[0-9;]*m//g' "$1" | awk '$2 ~ /^(pass|fail|cancelled|skipped|todo)$/ && $1 ~ /^(#|ℹ)$/ {
    n[$2] += $3 } END { print n["pass"] + 0, n["fail"] + n["cancelled"], n["skipped"] + n["todo"] }')
  note "failed" < <(sed -n -e 's/^ *not ok [0-9]* - //p' -e 's/^ *✖ //p' "$1" | sort -u)
  note "skipped" < <(sed -nE -e 's/^ *ok [0-9]* - (.*# (SKIP|TODO).*)/\1/p' -e 's/^ *﹣ //p' "$1" | sort -u)
}

end_group() {
  if [ -n "$group" ]; then kill -TERM -- "-$group" 2>/dev/null || true; fi
  # KILL: bash may lose another signal while it starts the subshell.
  if [ -n "$watchdog" ]; then
    kill -KILL -- "-$watchdog" 2>/dev/null || true
    # Reaped here, or bash would tell of its end in the middle of the report.
    wait "$watchdog" 2>/dev/null || true
  fi
  group="" watchdog=""
}

# in_group LOG COMMAND...: runs the command in a process group of its own, so that browsers and test binaries end with it
# however it ends. Its exit status comes in LOG.status, which is missing where the time was up.
in_group() {
  local log=$1 pipe
  shift
  set -m
  {
    set +e
    (
      set -e
      "$@"
    )
    echo $? >"$log.status"
  } </dev/null 2>&1 | tee "$log" &
  pipe=$! group=$(jobs -p %%)
  (sleep "$part_limit" && kill -TERM -- "-$group") >/dev/null 2>&1 &
  watchdog=$!
  set +m
  wait "$pipe" || true
  end_group
}

# part NAME COUNTER COMMAND...: runs the command with its output on the terminal and in a log. `part_failed` tells the
# parts that build on it.
part() {
  local name=$1 counter=$2 log start=$SECONDS status good bad left_out result
  shift 2
  log=$logs/$(printf '%s' "$name" | tr -cs 'a-zA-Z0-9' -).log
  printf '\n==> %s\n' "$name"
  in_group "$log" "$@"
  status=$(cat "$log.status" 2>/dev/null || echo 124)
  "$counter" "$log"
  if [ "$status" = 0 ] && [ $((good + bad)) = 0 ]; then
    # A suite in which nothing ran has shown nothing.
    if [ "$counter" = count_check ]; then good=1; else bad=1 && details+="failed: $name ran no test"$'\n'; fi
  fi
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1 && details+="failed: $name: see $log"$'\n'; fi
  if [ "$status" = 124 ]; then details+="failed: $name took more than $part_limit s"$'\n'; fi
  part_failed=$bad
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left_out))
  result="$good passed"
  if [ "$counter" = count_check ] && [ "$bad" = 0 ]; then result=passed; fi
  if [ "$bad" -gt 0 ]; then result="FAILED ($bad failed, $good passed; exit status $status)"; fi
  if [ "$left_out" -gt 0 ]; then result+=", $left_out skipped"; fi
  row "$name" "$((SECONDS - start))" "$result"
}

skip() {
  skipped=$((skipped + 1))
  row "$1" - "skipped: $2"
  details+="skipped: $1: $2"$'\n'
}

setup() {
  local name=$1 start=$SECONDS
  shift
  printf '\n==> %s\n' "$name"
  if ! "$@"; then
    row "$name" "$((SECONDS - start))" "FAILED: see what to install above"
    exit 1
  fi
  row "$name" "$((SECONDS - start))" "done"
}

clippy() { cargo clippy --locked --release "$@" -- -D warnings; }

# What getrandom wants to be told for a browser.
wasm_clippy() { RUSTFLAGS='--cfg getrandom_backend="wasm_js"' clippy --lib --target "$WASM_TARGET"; }

# The compiler's warnings fail the build of the wasm too. cargo repeats them when there is nothing to build, and colours
# them where CARGO_TERM_COLOR says so.
web_build() {
  npm --prefix web run build 2>&1 | tee "$logs/web-build-output"
  if sed $'s/\e\\[[0-9;]*m//g' "$logs/web-build-output" | grep -E '^warning: .foredraft. .* generated'; then return 1; fi
}

# The checks use the release profile as the tests do, so that build scripts and macros are compiled once.
run_rust() {
  part "tracked files" count_check bash tests/tracked_files.sh
  part "cargo fmt" count_check cargo fmt --check
  part "cargo clippy" count_check clippy --all-targets
  part "cargo build" count_check cargo test --locked --release --no-run
  if [ "$part_failed" -gt 0 ]; then
    skip "cargo test" "the build failed"
    return
  fi
  part "test models" count_check setup_models
  part "cargo test" count_cargo cargo test --locked --release --no-fail-fast
}

run_browser() {
  if [ "$FOREDRAFT_WASM_BUILD_STD" = 1 ]; then
    # There is no clippy for Debian's compiler; the wasm build below still fails on its warnings.
    row "clippy for wasm" - "the compiler's own warnings instead: this Rust has no clippy for wasm"
  else
    part "clippy for wasm" count_check wasm_clippy
  fi
  part "web build" count_check web_build
  if [ "$part_failed" -gt 0 ]; then
    skip "web tests" "the web build failed"
    return
  fi
  if [ "$only" = browser ]; then part "test models" count_check setup_models; fi
  part "web tests" count_node npm --prefix web test
  # Fetches bundlers from the registry, which nothing else needs.
  if [ -n "${FOREDRAFT_TEST_FULL:-}" ]; then part "bundlers" count_node node --test tests/bundlers/bundlers.test.mjs; fi
}

if [ "$only" = rust ]; then setup "set up for Rust" setup_for_rust; else setup "set up" setup_for_all; fi
if [ "$only" != browser ]; then run_rust; else skip "Rust checks and tests" "--only browser"; fi
if [ "$only" != rust ]; then run_browser; else skip "wasm and browser tests" "--only rust"; fi
finished=yes

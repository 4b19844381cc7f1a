#!/usr/bin/env bash
# Breaks one rule after the other, as the table in README.md lists them, and fails unless each is noticed
# where the table says, within its bound. Then a real cluster loses one unit in a thousand: `kassa verify`
# and `kassa bench` have to notice. Builds once; some minutes on two cores. `breaks.sh NAME…` takes but those.
set -euo pipefail
cd "$(dirname "$0")/../.."
readme=tests/sim/README.md
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# A failure that is wanted is not to be kept for the next run.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 RUST_BACKTRACE=0

row='^| `\([a-z-]*\)` |.*| \(sim [0-9]*\|blocking [0-9]*\|sluggish\|held\|modules\|paxos\|quorum\|eventual\|commit\) |$'
sed -n "s/$row/\1 \2/p" "$readme" >"$logs/table"
grep -rhoE 'breaks::is\("[a-z-]+"\)' src protocols/src | sed 's/.*"\(.*\)".*/\1/' | sort -u >"$logs/placed"
if ! diff <(cut -d' ' -f1 "$logs/table" | sort -u) "$logs/placed"; then
  echo "the table in $readme (<) is not what the code has (>)"
  exit 1
fi

cargo test -p kassa -p kassa-protocols --features breaks,failpoints --lib \
  --test sim --test commit --test eventual --test paxos --test quorum --no-run 2>&1 | tee "$logs/build"
program() { sed -n "s|.*Executable $1 (\(.*\))|\1|p" "$logs/build" | head -1; }
declare -A programs=(
  [sim]=$(program tests/sim/main.rs) [modules]=$(sed -n 's|.*unittests src/lib.rs (\(.*/kassa-[0-9a-f]*\))|\1|p' "$logs/build")
  [paxos]=$(program tests/paxos/main.rs) [quorum]=$(program tests/quorum/main.rs)
  [eventual]=$(program tests/eventual/main.rs) [commit]=$(program tests/commit/main.rs)
)
# Runs the tests of `$1` as cargo does: in the folder of their package.
tests_of() {
  local program
  program=$(realpath "${programs[$1]:-${programs[sim]}}")
  case $1 in
    modules | sluggish | held) "$program" "$1::" ;;
    *) (cd protocols && "$program") ;;
  esac
}
for which in modules sluggish held commit eventual paxos quorum; do
  [ -x "${programs[$which]:-${programs[sim]}}" ] || { echo "no program for $which"; exit 1; }
  if ! tests_of "$which" >"$logs/out" 2>&1; then
    cat "$logs/out"
    echo "$which fails though nothing is broken"
    exit 1
  fi
done

unnoticed=()
while read -r name where bound; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  if [ "$where" = sim ] || [ "$where" = blocking ]; then
    config=commit=reserve
    [ "$where" = sim ] || config=commit=blocking
    if BREAK=$name CONFIG=$config SEEDS=$bound "${programs[sim]}" --exact seeds::seeds_hold --nocapture >"$logs/out" 2>&1; then
      grep -A1 ': noticed after' "$logs/out" | cut -c1-200
      continue
    fi
  elif ! BREAK=$name tests_of "$where" >"$logs/out" 2>&1; then
    echo "$name: noticed by $where: $(grep -m1 -A1 'panicked at' "$logs/out" | tail -1 | cut -c1-160)"
    continue
  fi
  tail -n 3 "$logs/out"
  echo "$name: NOT NOTICED by $where"
  unnoticed+=("$name")
done <"$logs/table"

# A real cluster that loses units.
port=${KASSA_HTTP_PORT:-18000}
kassa=target/debug/kassa
[ -z "${CARGO_TARGET_DIR:-}" ] || kassa=$CARGO_TARGET_DIR/debug/kassa
if [ $# -eq 0 ] || [[ " $* " == *" lost-unit "* ]]; then
  BREAK=lost-unit "$kassa" up --data "$logs/cluster" --http-port "$port" >"$logs/up" 2>&1 &
  up=$!
  trap 'kill "$up" 2>/dev/null || true; wait "$up" 2>/dev/null || true; rm -rf "$logs"' EXIT
  for _ in $(seq 600); do
    grep -q 'is ready' "$logs/up" && break
    kill -0 "$up" || { cat "$logs/up"; exit 1; }
    sleep 0.1
  done
  for check in "verify --orders 5000" "bench --seconds 5"; do
    status=0
    # shellcheck disable=SC2086 — its words are arguments.
    "$kassa" $check --url "http://127.0.0.1:$port" >"$logs/out" 2>&1 || status=$?
    if [ "$status" = 1 ]; then
      echo "lost-unit: noticed by kassa $check"
    else
      tail -n 20 "$logs/out"
      echo "lost-unit: NOT NOTICED by kassa $check (exit code $status)"
      unnoticed+=("lost-unit by kassa $check")
    fi
  done
fi

if [ ${#unnoticed[@]} -gt 0 ]; then
  echo "not noticed: ${unnoticed[*]}"
  exit 1
fi
echo 'every break was noticed'

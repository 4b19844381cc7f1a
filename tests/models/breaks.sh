#!/usr/bin/env bash
# Breaks one rule after the other, as the table of breaks in README.md lists them, and fails unless the model
# and the bounds named there find it. Builds once. `breaks.sh NAME…` takes but those.
set -euo pipefail
cd "$(dirname "$0")/../.."
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export RUST_BACKTRACE=0

sed -n 's/^| `\([a-z-]*\)` | \([a-z]*\) | \([^|]*[^ |]\) *|.*$/\1;\2;\3/p' tests/models/README.md >"$logs/table"
[ -s "$logs/table" ] || { echo 'no table'; exit 1; }
cargo test -p kassa --features breaks --test models --no-run 2>&1 | tee "$logs/build"
models=$(sed -n 's|.*Executable tests/models/main.rs (\(.*\))|\1|p' "$logs/build")
if ! "$models" --nocapture >"$logs/out" 2>&1; then
  cat "$logs/out"
  echo 'the models fail though nothing is broken'
  exit 1
fi

unnoticed=()
while IFS=';' read -r name model bounds; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  if BREAK=$name MODEL_BOUNDS=$bounds timeout 120 "$models" "$model" --nocapture >"$logs/out" 2>&1; then
    echo "$name: NOT NOTICED by $model, $bounds"
    unnoticed+=("$name by $model")
    continue
  fi
  # The first line says what was violated, the next one where and after how many states.
  if ! grep -m1 -B1 "^$model, $bounds, after" "$logs/out" >"$logs/found"; then
    tail -n 20 "$logs/out"
    echo "$name: $model, $bounds failed, and not for a violation"
    unnoticed+=("$name by $model")
    continue
  fi
  echo "$name: $(tail -1 "$logs/found" | tr -d :) $(head -1 "$logs/found" | cut -c1-120)"
done <"$logs/table"

if [ ${#unnoticed[@]} -gt 0 ]; then
  echo "not noticed: ${unnoticed[*]}"
  exit 1
fi
echo 'every break was noticed'

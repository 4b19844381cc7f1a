#!/usr/bin/env bash
# Breaks one rule after the other, as the table in README.md lists them, in the pods of a real cluster, and fails
# unless `kassa torture` finds each within three minutes. Builds once; `breaks.sh NAME…` takes but those, with
# faults and a seed of your own in FAULTS and SEED where you like.
set -euo pipefail
cd "$(dirname "$0")/../.."
readme=tests/torture/README.md
minutes=3
port=${KASSA_HTTP_PORT:-18600}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

row='^| `\([a-z-]*\)` |.*| \([0-9]*\) | \([a-z,-]*\) |$'
sed -n "s/$row/\1 \2 \3/p" "$readme" >"$logs/table"
[ $# -eq 0 ] || for name in "$@"; do
  grep -q "^$name " "$logs/table" || echo "$name ${SEED:-1} all" >>"$logs/table"
done

cargo build --features breaks
kassa=${CARGO_TARGET_DIR:-target}/debug/kassa
unfound=()
while read -r name seed faults; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  seed=${SEED:-$seed}
  faults=${FAULTS:-$faults}
  status=0
  started=$SECONDS
  # shellcheck disable=SC2046 — the flag and its value are two words, or none.
  BREAK=$name timeout 400 "$kassa" torture --minutes "$minutes" --seed "$seed" \
    $([ "$faults" = all ] || echo --faults "$faults") \
    --http-port "$port" --data "$logs/cluster" >"$logs/out" 2>&1 </dev/null || status=$?
  if [ "$status" = 1 ]; then
    echo "$name: found after $((SECONDS - started)) s: $(sed -n '/^WRONG/{n;s/^ *//;p;q}' "$logs/out" | cut -c1-160)"
  else
    tail -n 20 "$logs/out"
    echo "$name: NOT FOUND (exit code $status)"
    unfound+=("$name")
  fi
done <"$logs/table"
if [ ${#unfound[@]} -gt 0 ]; then
  echo "not found: ${unfound[*]}"
  exit 1
fi
echo 'every break was found'

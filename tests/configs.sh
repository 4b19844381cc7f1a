#!/usr/bin/env bash
# Real clusters of every configuration: the contract holds on each, and `kassa verify` finds its books right.
# `configs.sh [KASSA [PORT]]`; each cluster listens on eight ports from PORT on, and for its fabric 200 above.
set -euo pipefail
cd "$(dirname "$0")/.."
kassa=${1:-target/release/kassa}
port=${2:-18000}
work=$(mktemp -d)
up=
trap '[ -z "$up" ] || kill "$up" 2>/dev/null || true; wait || true; rm -rf "$work"' EXIT

# The settings of all pods, and flags of `up` behind a bar.
configurations=(
  'checkout.commit="blocking"'
  'stock.protocol="paxos"'
  'stock.write_quorum="all"'
  'payment.protocol="quorum"'
  'payment.protocol="quorum" stock.protocol="paxos"'
  'payment.protocol="quorum" stock.write_quorum="all"'
  '| --pods 5 --payment-pods 3'
  '| --pods 6 --payment-pods 3 --stock-pods 3'
  '| --pods 2'
  '| --pods 1'
)

for configuration in "${configurations[@]}"; do
  printf '\n== %s\n' "$configuration"
  began=$SECONDS
  tr ' ' '\n' <<<"${configuration%%|*}" >"$work/shared.toml"
  flags=()
  [[ $configuration != *'|'* ]] || read -ra flags <<<"${configuration#*|}"
  "$kassa" up --fresh --no-restart --data "$work/data" --http-port "$port" --nginx "$((port - 100))" \
    --config "$work/shared.toml" "${flags[@]}" >"$work/out" 2>&1 &
  up=$!
  for _ in $(seq 600); do
    grep -q 'is ready' "$work/out" && break
    kill -0 "$up" || { cat "$work/out"; exit 1; }
    sleep 0.1
  done
  pods=$(sed -n 's/^  pods *//p' "$work/out")
  if [ "$(wc -w <<<"$pods")" -lt 3 ]; then grep -q 'BEARS NO LOSS' "$work/out"; fi
  # shellcheck disable=SC2086 # one URL each
  KASSA_URLS=$(printf '%s,' $pods | sed 's/,$//') cargo test -q --test contract >"$work/contract" 2>&1 ||
    { cat "$work/contract"; exit 1; }
  grep 'test result' "$work/contract"
  "$kassa" verify --url "http://127.0.0.1:$((port - 100))" --orders 2000
  "$kassa" status --url "${pods%% *}"
  kill "$up"
  wait "$up"
  up=
  for directory in "$work"/data/pod-*; do "$kassa" check "$directory" >/dev/null; done
  echo "$((SECONDS - began)) s"
done

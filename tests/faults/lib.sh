# For the scripts beside it: a cluster of `kassa up` to harm. Sets $data, $shop, and ends all when the script ends.
# Arguments of each script: the kassa binary, and a port for the first pod.

set -euo pipefail
kassa=$(realpath "${1:-target/release/kassa}")
port=${2:-18000}
work=$(mktemp -d)
data=$work/cluster
shop=http://127.0.0.1:$port
up=

fail() {
  printf '%s: %s\n' "$0" "$*" >&2
  tail -n 20 "$work/up" "$data"/pod-*/log >&2 || true
  exit 1
}

# Until a condition holds, or half a minute has gone by.
eventually() {
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "never: $*"
}

ready() { curl -fs "http://127.0.0.1:$((port + $1))/readyz"; }

start() {
  : >"$work/up"
  # Without an nginx: what one pod answers is the matter here.
  PATH=/nowhere "$kassa" up --data "$data" --http-port "$port" >"$work/up" 2>&1 &
  up=$!
  for pod in 0 1 2; do eventually ready "$pod"; done
}

stop() {
  kill "$up"
  wait "$up" || fail "up ended with $?"
  up=
}

# Sells through one pod, and compares the books with what the buyers were told.
verify() { "$kassa" verify --url "http://127.0.0.1:$((port + $1))" --orders 300 >"$work/verify" 2>&1; }

sells() { verify "$1" || { cat "$work/verify"; fail "pod $1 does not sell"; }; }

whole() {
  for pod in 0 1 2; do "$kassa" check "$data/pod-$pod" >/dev/null || fail "pod $pod is not whole"; done
}

clean_up() {
  if [ -n "$up" ]; then kill "$up" && wait "$up" || true; fi
  if mountpoint -q "$data/pod-1"; then umount "$data/pod-1"; fi
  rm -rf "$work"
}
trap clean_up EXIT

#!/usr/bin/env bash
# Writes and fsyncs of one pod fail, as strace has it: for want of room and for no reason, in each store. The pod
# stops itself with code 70 and names the store, is started again, and the others sell on meanwhile. Then the same
# while a pod starts. Needs strace, and leave to trace.
#
# usage: tests/faults/failing_disk.sh [KASSA [PORT]]
. "$(dirname "$0")/lib.sh"

command -v strace >/dev/null || fail 'strace is not there: apt-get install strace'
declare -A says=([EIO]='Input/output error' [ENOSPC]='No space left on device')
start
sells 0
pod=0
ends=0

# fails CALLS ERROR WHEN FOLDER [PATH]: has these calls of a pod fail, on one path or on all, and then the next pod
# is the one. The first word on stderr that is not of the log says where in FOLDER, and what.
fails() {
  local calls=$1 error=$2 when=$3 folder=$4 path=${5:-}
  local victim lines tracer said
  victim=$(cat "$data/pod-$pod/pid")
  lines=$(wc -l <"$data/pod-$pod/log")
  strace -f -qq -o /dev/null ${path:+-P "$path"} -e trace="$calls" -e inject="$calls:error=$error:when=$when" \
    -p "$victim" &
  tracer=$!
  ended() { ! kill -0 "$victim"; }
  # The first calls may come, and fail, before this looks.
  attached() { grep -q "^TracerPid:[[:space:]]*$tracer\$" "/proc/$victim/status" || ended; }
  eventually attached
  sells $(((pod + 1) % 3))
  eventually ended
  wait "$tracer" || true
  ends=$((ends + 1))
  eventually sh -c "[ \$(grep -c 'ended (exit code 70' '$work/up') = $ends ]"
  said=$(tail -n +$((lines + 1)) "$data/pod-$pod/log" | grep '^kassa: ' | head -n 1)
  case $said in
  *"$folder"*"${says[$error]}"*) echo "$calls $error: $said" ;;
  *) fail "it does not say which store, or why: $said" ;;
  esac
  eventually ready "$pod"
  sells "$pod"
  pod=$(((pod + 1) % 3))
}

for when in 1 2 7 20+; do
  fails fsync,fdatasync EIO "$when" "$data/pod-$pod/"
done
for store in order stock payment; do
  for calls in write,writev,pwrite64 fsync,fdatasync; do
    for error in EIO ENOSPC; do
      folder=$data/pod-$pod/$store
      fails "$calls" "$error" 3+ "$folder: " "$(find "$folder" -maxdepth 1 -name '*.jnl' | sort -V | tail -n 1)"
    done
  done
done
[ "$(grep -c 'ended (' "$work/up")" = "$ends" ] || fail 'one that was not harmed has ended as well'
stop
whole

# A start that cannot write what it has to: for want of room it is tried again (70), otherwise it is not (3).
for calls in write fsync; do
  for error in EIO ENOSPC; do
    for path in stock/kassa.new order/kassa.new; do
      code=0
      strace -f -qq -o /dev/null -P "$data/pod-0/$path" -e trace="$calls" -e inject="$calls:error=$error" \
        "$kassa" serve --config "$data/pod-0/kassa.toml" >"$work/start" 2>&1 || code=$?
      expected=3
      [ "$error" = EIO ] || expected=70
      said=$(grep '^kassa: ' "$work/start") || fail "it says nothing: $(cat "$work/start")"
      [ "$code" = "$expected" ] || fail "a start ended with $code: $said"
      case $said in
      *"$data/pod-0/${path%/*}"*"${says[$error]}"*) ;;
      *) fail "it does not say which store, or why: $said" ;;
      esac
    done
  done
done
whole
start
for one in 0 1 2; do sells "$one"; done
stop
whole
echo "failing disk: $ends pods stopped themselves, eight did not start, nothing was lost"

#!/usr/bin/env bash
# An fsync of one pod fails, as strace has it. The pod stops itself with code 70 and names the store, is started
# again, and the others sell on meanwhile. Needs strace, and leave to trace.
#
# usage: tests/faults/failing_fsync.sh [KASSA [PORT]]
. "$(dirname "$0")/lib.sh"

command -v strace >/dev/null || fail 'strace is not there: apt-get install strace'
start
sells 0
pod=0
for when in 1 2 7 20+; do
  victim=$(cat "$data/pod-$pod/pid")
  lines=$(wc -l <"$data/pod-$pod/log")
  strace -f -qq -o /dev/null -e trace=fsync,fdatasync -e inject="fsync,fdatasync:error=EIO:when=$when" -p "$victim" &
  tracer=$!
  ended() { ! kill -0 "$victim"; }
  # The first fsyncs may come, and fail, before this looks.
  attached() { grep -q "^TracerPid:[[:space:]]*$tracer\$" "/proc/$victim/status" || ended; }
  eventually attached
  sells $(((pod + 1) % 3))
  eventually ended
  wait "$tracer" || true
  eventually grep -q "pod $pod ended (exit code 70" "$work/up"
  said=$(tail -n +$((lines + 1)) "$data/pod-$pod/log" | grep '^kassa: ' | head -n 1)
  case $said in
  *"$data/pod-$pod/"*"Input/output error"*) echo "$said" ;;
  *) fail "it does not say which store: $said" ;;
  esac
  eventually ready "$pod"
  sells "$pod"
  pod=$(((pod + 1) % 3))
done
[ "$(grep -c 'ended (' "$work/up")" = 4 ] || fail 'one that was not harmed has ended as well'
stop
whole
echo 'failing fsync: four pods stopped themselves, nothing was lost'

#!/usr/bin/env bash
# One pod's directory lies on a disk of its own, which fills up. That pod stops itself, and again whenever it is
# started; the others sell on. Once there is room it comes back whole. Needs root, for a small file system.
#
# usage: tests/faults/full_disk.sh [KASSA [PORT]]
. "$(dirname "$0")/lib.sh"

start
sells 0
stop

mkdir "$work/aside"
mv "$data/pod-1" "$work/aside/"
mkdir "$data/pod-1"
mount -t tmpfs -o size=48m tmpfs "$data/pod-1"
cp -a --sparse=always "$work/aside/pod-1/." "$data/pod-1/"
start
sells 1

dd if=/dev/zero of="$data/pod-1/ballast" bs=4k status=none 2>/dev/null || true
sells 0
eventually grep -q 'pod 1 ended (exit code 70' "$work/up"
sells 2
# It is tried again, and refused in the same way, not for good.
eventually sh -c "[ \$(grep -c 'pod 1 ended (exit code 70' '$work/up') -ge 3 ]"
sells 0
if grep -q 'not started again' "$work/up"; then fail 'it was given up'; fi
grep -hs 'No space left on device' "$data/pod-1/log" | tail -n 1 || echo '(its log found no room either)'

rm "$data/pod-1/ballast"
eventually ready 1
sells 1
stop
whole
echo "full disk: pod 1 stopped $(grep -c 'pod 1 ended' "$work/up") times, nothing was lost"

# A test binary as far as its caller can tell: `-test.list`, `-test.run`, `-test.skip`, `-test.count`, Go's output.
fail() { [ $# -eq 0 ] || echo "    scripted_test.go:1: $*"; result=FAIL; }
skip() { echo "    scripted_test.go:1: $*"; result=SKIP; }
sub() {
  printf '=== RUN   %s/%s\n' "$test" "$1"
  verdict=PASS
  [ "$2" != fail ] || { verdict=FAIL result=FAIL; }
  subs="$subs    --- $verdict: $test/$1 (0.00s)
"
}
# Asks the world for something, and waits for it.
world() { echo "$1" >"$KMT_GUEST/control.new"; mv "$KMT_GUEST/control.new" "$KMT_GUEST/control"; case $1 in SIGUSR1 | link-cut) ;; *) sleep 600 ;; esac; }
# The kernel says something now, by its own clock.
kernel() {
  at=$(awk '{ printf "%.0f", $1 * 1000000 }' /proc/uptime)
  records=$(wc -l <"$KMT_GUEST/dev/kmsg")
  for line in "$@"; do
    records=$((records + 1))
    printf '4,%d,%d,-;%s\n' "$records" "$at" "$line" >>"$KMT_GUEST/dev/kmsg"
  done
}
chosen() { [ -z "$2" ] || printf '%s\n' "$1" | grep -Eq -- "${2%%/*}"; }

wanted='' unwanted='' words='' list='' listing=no count=1
while [ $# -gt 0 ]; do
  case $1 in
  -test.list) listing=yes list=$2; shift ;;
  -test.run=*) wanted=${1#*=} ;;
  -test.skip=*) unwanted=${1#*=} ;;
  -test.count=*) count=${1#*=} ;;
  -test.*) ;;
  # What is not of Go's testing package, for tests to look at.
  *) words="$words $1" ;;
  esac
  shift
done
if [ "$listing" = yes ]; then
  for test in $names; do
    if chosen "$test" "$list"; then echo "$test"; fi
  done
  exit 0
fi
status=0
while [ "$count" -gt 0 ]; do
  count=$((count - 1))
  for test in $names; do
    chosen "$test" "$wanted" || continue
    if [ -n "$unwanted" ] && chosen "$test" "$unwanted"; then continue; fi
    printf '=== RUN   %s\n' "$test"
    result=PASS subs=''
    "run_$test"
    [ "$result" != FAIL ] || status=1
    printf -- '--- %s: %s (0.00s)\n%s' "$result" "$test" "$subs"
  done
done
if [ "$status" -eq 0 ]; then echo PASS; else echo FAIL; fi
exit "$status"

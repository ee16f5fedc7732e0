#!/bin/sh
echo "TAP version 13"
echo "1..3"
echo "called with $*"
echo "ok 1 - any port"
echo "not ok 2 - taken port"
echo "# expected EADDRINUSE"
echo "ok 3 - old # SKIP needs 5.8"
exit 1

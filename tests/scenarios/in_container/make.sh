#!/bin/sh
[ "$WORD" = "two words" ] || exit
echo "CC bind.c"
if [ -e broken ]; then
  echo "bind.c:3:1: error: expected ';' before '}' token" >&2
  exit 2
fi
mkdir -p "$1"
printf '#!/bin/sh\necho 1..1\necho "ok 1 - any port"\n' >"$1/bind"
chmod +x "$1/bind"

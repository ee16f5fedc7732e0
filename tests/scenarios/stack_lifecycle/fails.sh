#!/bin/sh
echo "cannot" >&2
exit 3

#!/bin/sh
echo "1..3"
echo "ok 1 - starts"
echo "#  RUN           ring.wraps ..."
kill -SEGV $$

#!/bin/sh
echo "hello from $(uname -r)"

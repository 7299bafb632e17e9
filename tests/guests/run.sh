#!/bin/sh
# run.sh TRIODE KERNEL [OPTION...]: runs a guest that ends by the debug-exit device; 0 means that it
# wrote 0 there, or that Triode ended with $STATUS.
triode=$1
kernel=$2
shift 2
"$triode" run --engine soft --kernel "$kernel" --mem 64M --test-devices "$@" </dev/null
[ $? -eq "${STATUS:-1}" ]

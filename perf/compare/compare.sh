#!/bin/bash
# Runs Ringpost, Postfix, OpenSMTPD and smtp-sink on the same core under the same load, one after the other, and writes
# the tables of docs/performance.md. Debian packages of the rivals are unpacked below target/peers, not installed.
#
#   perf/compare/compare.sh [--ringpost BINARY] [--only ringpost,postfix] [--rounds 3] [--seconds 5] [--out FILE]
#
# Needs root (namespaces, strace), python3, apt-get, two idle cores; perf and strace for the counts. Loopback only.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in python3 taskset setpriv unshare nsenter dpkg apt-get findmnt; do
    command -v "$tool" > /dev/null || { echo "compare: $tool is not there" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "compare: run it as root: rivals need namespaces, strace needs their processes" >&2; exit 1; }
[ "$(nproc)" -ge 2 ] || { echo "compare: two cores are needed, one for the server and one for the load" >&2; exit 1; }
for tool in perf strace; do
    command -v "$tool" > /dev/null || echo "compare: no $tool, so its counts will be missing" >&2
done

target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --profile dist -p ringpost-bench --example load
# Only when it takes part, and no other binary is named.
if [[ " $* " != *" --ringpost"* ]] && [[ " $* " != *" --only"* || " $* " =~ --only[=\ ][^\ ]*ringpost ]]; then
    cargo build --quiet --profile dist --bin ringpost
fi

# compare.py stops what it starts, and what it starts does not outlive it.
python3 perf/compare/compare.py --ringpost "$target/dist/ringpost" --load "$target/dist/examples/load" "$@" &
child=$!
trap 'kill -TERM "$child" 2> /dev/null; wait "$child"' EXIT
trap 'exit 130' INT TERM
wait "$child"

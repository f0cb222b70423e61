#!/bin/bash
# A cluster's job (docs/deploy.md): cluster_job.sh REMOTE [what `lightreasoner run` takes]
#
# Takes results from REMOTE, runs, and sends what is finished: every few minutes, for a machine that
# is taken away, and at the end, also when SIGTERM ends it early.
set -u
remote=$1
shift
share() { .venv/bin/lightreasoner store "$@" "$remote"; }

share pull || echo "not all of $remote was taken; what lacks is computed"
.venv/bin/lightreasoner run "$@" &
run=$!
trap 'kill -TERM $run' TERM INT HUP
next=$((SECONDS + 300))
while kill -0 $run 2> /dev/null; do
    sleep 1
    if [ $SECONDS -ge $next ]; then
        share push &
        wait $!  # unlike a command in the foreground, the trap does not wait for it
        next=$((SECONDS + 300))
    fi
done
wait $run
status=$?
share push && exit $status

#!/usr/bin/env bash
# Starts servers for tests, says `ready`, and removes them and all that the tests have started when its
# standard input ends: that happens however the tests end.
# usage: servers.sh STATE SCRATCH OPTIONS-OF-UP…
set -u
state=$1 scratch=$2
shift 2
local=$(dirname "$(realpath "$0")")/../../../deploy/local

if "$local/up" --state "$state" "$@" </dev/null >"$scratch/up.log" 2>&1; then said=ready; else said=failed; fi
# In a process of its own: the tests may have ended, and then a write ends the writer.
(echo "$said")
cat >/dev/null

for running in /proc/[0-9]*; do
  [ "$(readlink "$running/exe")" != "$scratch/tokenmeter" ] || kill -KILL "${running#/proc/}"
done
"$local/down" --state "$state" --kill --purge </dev/null >"$scratch/down.log" 2>&1
# What `up` had only begun to start has no pid file yet.
for running in /proc/[0-9]*; do
  [ "${running#/proc/}" = $$ ] || ! tr '\0' '\n' 2>/dev/null <"$running/cmdline" | grep -qF -- "$state/" ||
    kill -KILL "${running#/proc/}"
done
rm -rf "$state" "$scratch"

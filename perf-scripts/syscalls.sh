#!/usr/bin/env bash
# How often Leveret enters the kernel per message, by system call, under a scenario.
#
#   perf-scripts/syscalls.sh [--scenario NAME] [--shards N] [--seconds N] [--tracer perf|strace]
#                            [--no-build] [--output DIR]
#
#   --scenario  what puts the broker under load (throughput-16b)
#   --shards    shards, on cores 0 to N-1; the load takes the next core (1)
#   --seconds   measured seconds (3)
#   --tracer    who counts; without it perf where the kernel lets it, else strace
#   --no-build  takes the release binaries that are there
#   --output    where the table goes (target/syscalls)
#
# Whatever counts the calls also slows the broker down, strace by far the most, and a slower broker
# finds more work per call: nothing here is a speed, and only counts by the same tracer compare.
# Set-up and warm-up are counted with the rest.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

scenario=throughput-16b shards=1 seconds=3 tracer='' build=yes
output=$target/syscalls

main() {
    read_arguments "$@"
    (($(nproc --all) > shards)) ||
        fail "$shards shard(s) and the load need $((shards + 1)) cores, there are $(nproc --all)"
    require taskset "apt-get install util-linux"
    require python3 "apt-get install python3 (it reads results.json)"
    [[ -n $tracer ]] || find_tracer
    if [[ $build == yes ]]; then
        build "$target" leveret-server leveret-bench
    fi
    begin_work
    start_leveret "$target/release/leveret" "0-$((shards - 1))" "$shards"
    count
    print_table | tee "$output/syscalls.txt"
    say "table: $output/syscalls.txt"
}

read_arguments() {
    while (($#)); do
        case $1 in
            --shards | --seconds)
                want_number "$@"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --tracer)
                [[ ${2-} == perf || ${2-} == strace ]] || wrong "--tracer needs perf or strace"
                tracer=$2
                require "$tracer" "apt-get install ${tracer/#perf/linux-perf}"
                shift
                ;;
            --scenario | --output)
                [[ -n ${2-} ]] || wrong "$1 needs a value"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --no-build) build=no ;;
            --help)
                print_head
                exit 0
                ;;
            *) wrong "unknown argument $1" ;;
        esac
        shift
    done
}

# perf is far cheaper than strace, where the kernel lets us use it.
find_tracer() {
    if perf trace -s -o /dev/null -- true >/dev/null 2>&1; then
        tracer=perf
    elif command -v strace >/dev/null; then
        tracer=strace
        say "perf is missing or may not trace: counting with strace, which slows down much more"
    else
        fail "neither works: perf trace (apt-get install linux-perf, as root) and strace" \
            "(apt-get install strace)"
    fi
}

count() {
    local pid signal
    say "counting system calls under $scenario for $seconds s with $tracer"
    if [[ $tracer == perf ]]; then
        perf trace --summary -o "$work/calls.txt" -p "$leveret_pid" 2>"$work/tracer.log" &
        signal=INT
    else
        # A background process of a script does not hear SIGINT unless it asks for it, as perf does.
        strace -c -f -o "$work/calls.txt" -p "$leveret_pid" 2>"$work/tracer.log" &
        signal=TERM
    fi
    pid=$!
    started+=("$pid")
    # Until it is attached.
    sleep 1
    "$target/release/leveret-bench" run "$scenario" --broker "${brokers[1]}" --runs 1 \
        --seconds "$seconds" --load-core "$shards" --no-floor --out "$work" ||
        fail "the load failed: counts of that would mislead"
    kill "-$signal" "$pid" 2>/dev/null || fail "$tracer has ended: $(<"$work/tracer.log")"
    wait "$pid" || true
}

# Calls of all threads, most frequent first, with their share of the messages.
print_table() {
    local messages
    messages=$(published)
    ((messages > 0)) || fail "$scenario moves no messages: there is nothing to divide by"
    echo "$scenario, $shards shard(s), counted by $tracer: $messages messages published"
    echo
    list_calls | awk -v messages="$messages" '
        { calls[$1] += $2; all += $2 }
        END {
            calls["all"] = all
            printf "%-20s %12s %18s %18s\n", "call", "calls", "calls/message", "messages/call"
            sort = "sort -k2 -rn"
            for (name in calls)
                printf "%-20s %12d %18.5f %18.1f\n", name, calls[name], calls[name] / messages,
                    messages / calls[name] | sort
        }
    '
}

# "name calls" on each line. perf: "  name  calls errors total …", once for each thread;
# strace: "time seconds usecs/call calls [errors] name".
list_calls() {
    if [[ $tracer == perf ]]; then
        awk '$1 ~ /^[a-z_0-9]+$/ && $2 ~ /^[0-9]+$/ && NF >= 7 { print $1, $2 }' "$work/calls.txt"
    else
        awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print $NF, $4 }' "$work/calls.txt"
    fi
}

# What all runs have published, warm-up included.
published() {
    python3 -c '
import json, sys
scenarios = json.load(open(sys.argv[1]))["scenarios"]
runs = [run for scenario in scenarios for run in scenario["runs"]]
print(sum(run["messages"]["published"] for run in runs if run["messages"]))
' "$work/results.json"
}

main "$@"

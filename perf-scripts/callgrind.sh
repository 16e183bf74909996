#!/usr/bin/env bash
# Instructions per message in Leveret's engine, counted by valgrind: a figure that does not depend
# on the machine's mood, for changes too small for a clock.
#
#   perf-scripts/callgrind.sh [NAME …] [--rounds N] [--functions N] [--no-build] [--output DIR]
#
#   NAME         auto-ack-16b auto-ack-1k confirms-acks-16b topic-16b (all)
#   --rounds     receive buffers of 64 KiB in the longer run (40); the shorter has a quarter
#   --functions  how many of the costliest functions to show (12)
#   --no-build   takes the release binary that is there
#   --output     where callgrind's files go (target/callgrind), for callgrind_annotate, kcachegrind
#
# What runs is the pure shard without sockets (bench-suite/examples/messages.rs): parsing, routing,
# queueing, rendering. The kernel, the ring and the driver's loop are not in it, the allocator is
# the C library's. Start-up cancels out, because the difference of two runs of different length is
# taken. All is counted twice, and the two figures must agree within 0.1 %.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

names=() rounds=40 functions=12 build=yes
output=$target/callgrind

main() {
    read_arguments "$@"
    ((rounds >= 8)) || wrong "--rounds needs 8 at least: too few drown in rounding"
    require valgrind "apt-get install valgrind"
    if [[ $build == yes ]]; then
        require cargo "https://rustup.rs"
        say "building the example messages in $target/release"
        (cd "$repository" && CARGO_TARGET_DIR=$target \
            cargo build --release --quiet -p leveret-bench --example messages)
    fi
    messages=$target/release/examples/messages
    [[ -x $messages ]] || fail "$messages is missing: leave --no-build away"
    mkdir -p "$output"
    local name status=0
    for name in "${names[@]}"; do
        "$messages" "$name" 1 >/dev/null || wrong "$name cannot be counted"
    done

    printf '%-20s %12s %22s %22s %12s\n' shard messages 'instructions/message' 'counted again' \
        difference
    for name in "${names[@]}"; do
        count "$name" || status=1
    done
    for name in "${names[@]}"; do
        show_functions "$name"
    done
    say "callgrind's files: $output"
    ((status == 0)) || fail "two counts of the same differ by more than 0.1 %"
}

read_arguments() {
    while (($#)); do
        case $1 in
            --rounds | --functions)
                want_number "$@"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --output)
                [[ -n ${2-} ]] || wrong "--output needs a directory"
                output=$2
                shift
                ;;
            --no-build) build=no ;;
            --help)
                print_head
                exit 0
                ;;
            -*) wrong "unknown argument $1" ;;
            *) names+=("$1") ;;
        esac
        shift
    done
    ((${#names[@]})) || names=(auto-ack-16b auto-ack-1k confirms-acks-16b topic-16b)
}

# One row of the table; fails where the second count differs.
count() {
    local few=$((rounds / 4)) first second more
    first=$(difference "$1" "$rounds" "$few") || exit
    second=$(difference "$1" "$rounds" "$few") || exit
    more=$(($("$messages" "$1" "$rounds") - $("$messages" "$1" "$few")))
    awk -v name="$1" -v first="$first" -v second="$second" -v more="$more" 'BEGIN {
        difference = (first > second ? first - second : second - first) / first * 100
        printf "%-20s %12d %22.1f %22.1f %10.4f %%\n",
            name, more, first / more, second / more, difference
        exit difference > 0.1
    }'
}

# Instructions of $2 rounds without those of $3.
difference() {
    local long short
    long=$(instructions "$1" "$2") || return
    short=$(instructions "$1" "$3") || return
    echo $((long - short))
}

# All instructions of a run, start-up included.
instructions() {
    local file=$output/$1-$2.callgrind
    valgrind --tool=callgrind --callgrind-out-file="$file" "$messages" "$1" "$2" \
        >"$output/$1-$2.log" 2>&1 || fail "valgrind failed: $(tail -n 5 "$output/$1-$2.log")"
    awk '/^(summary|totals):/ { print $2; found = 1; exit } END { exit !found }' "$file"
}

# Callgrind lists a function once for each source file that was inlined into it: added up here.
show_functions() {
    echo
    echo "$1, costliest functions of $rounds rounds, start-up included:"
    callgrind_annotate --auto=no --threshold=100 "$output/$1-$rounds.callgrind" | awk '
        /PROGRAM TOTALS/ { gsub(",", "", $1); all = $1 }
        all && /^ *[0-9,]+ \(.*%\) .*:/ {
            cost = $1
            gsub(",", "", cost)
            sub(/^ *[0-9,]+ \( *[0-9.]+%\) *[^ ]*\.(rs|c|h|S|cpp):/, "")
            sub(/^ *[0-9,]+ \( *[0-9.]+%\) *\?\?\?:/, "")
            sub(/ \[[^]]*\]$/, "")
            costs[$0] += cost
        }
        END { for (name in costs) printf "%6.2f %%  %s\n", costs[name] / all * 100, name }
    ' | sort -rn | sed -n "1,${functions}p"
}

main "$@"

#!/usr/bin/env bash
# Instructions per message in Leveret's engine, counted by valgrind: a figure that does not depend
# on the machine's mood, for changes too small for a clock.
#
#   perf-scripts/callgrind.sh [NAME …] [--check | --record] [--rounds N] [--functions N]
#                             [--no-build] [--output DIR]
#
#   NAME         as `messages` lists them when it is called without arguments (all)
#   --check      counts once and compares with bench-suite/baselines/instructions.toml: a warning for
#                each that takes over 5 % more, and no failure, for compilers differ
#   --record     counts all as --check does, and writes that file
#   --rounds     receive buffers of 64 KiB in the longer run (40; with --check and --record always
#                16); the shorter has a quarter
#   --functions  how many of the costliest functions to show (12)
#   --no-build   takes the release binary that is there
#   --output     where callgrind's files go (target/callgrind), for callgrind_annotate, kcachegrind
#
# What runs is the pure shard without sockets (bench-suite/examples/messages.rs): parsing, routing,
# queueing, rendering. The kernel, the ring and the driver's loop are not in it, the allocator is
# the C library's. Start-up cancels out, because the difference of two runs of different length is
# taken. All is counted twice, and the two figures must agree within 0.1 %.
#
# A baseline that a change was meant to move is recorded in the same commit, which says why.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

readonly BASELINES=$repository/bench-suite/baselines/instructions.toml
# Of a baseline: below it lies what another order of functions does, above it a change.
readonly WARN_ABOVE_PERCENT=5
# Enough for 0.1 %, and few enough for a check of all kinds in well under a minute and a half.
readonly BASELINE_ROUNDS=16

names=() rounds=40 functions=12 build=yes mode=show
output=$target/callgrind

main() {
    read_arguments "$@"
    ((rounds >= 8)) || wrong "--rounds needs 8 at least: too few drown in rounding"
    require valgrind "apt-get install valgrind"
    if [[ $build == yes ]]; then
        require cargo "https://rustup.rs"
        say "building the example messages in $target/release"
        (cd "$repository" && CARGO_TARGET_DIR=$target \
            cargo build --release --quiet -p leveret-broker --example messages)
    fi
    messages=$target/release/examples/messages
    [[ -x $messages ]] || fail "$messages is missing: leave --no-build away"
    mkdir -p "$output"
    ((${#names[@]})) || mapfile -t names < <(all_names)
    local name
    for name in "${names[@]}"; do
        "$messages" "$name" 1 >/dev/null || wrong "$name cannot be counted"
    done
    case $mode in
        show) show ;;
        check) check ;;
        record) record ;;
    esac
}

# Kinds of messages, as the example's usage lists them.
all_names() {
    "$messages" 2>&1 | sed -n 's/^  \([a-z0-9-]*\)$/\1/p'
}

show() {
    local name status=0
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
            --check) mode=check ;;
            --record) mode=record ;;
            --help)
                print_head
                exit 0
                ;;
            -*) wrong "unknown argument $1" ;;
            *) names+=("$1") ;;
        esac
        shift
    done
    [[ $mode == show ]] || rounds=$BASELINE_ROUNDS
    [[ $mode != record || ${#names[@]} == 0 ]] || wrong "--record counts all: name none"
}

# A table beside the baselines, and a warning for each that grew.
check() {
    [[ -f $BASELINES ]] || fail "$BASELINES is missing: --record writes it"
    local name now before warned=no
    printf '%-24s %22s %12s %10s\n' shard 'instructions/message' baseline change
    for name in "${names[@]}"; do
        now=$(per_message "$name") || exit
        before=$(baseline "$name")
        judge "$name" "$now" "$before" || warned=yes
    done
    for tool in valgrind rustc; do
        before=$(baseline "$tool" | tr -d '"')
        now=$("version_of_$tool")
        [[ $now == "$before" ]] || say "baselines are of $tool $before, this is $now: some of a" \
            "change may be its"
    done
    [[ $warned == no ]] || say "if that is meant: perf-scripts/callgrind.sh --record"
}

# Name, figure and baseline as a row; false with a warning where it grew.
judge() {
    if [[ -z $3 ]]; then
        printf '%-24s %22s %12s %10s\n' "$1" "$2" none -
        echo "warning: $1 has no baseline: perf-scripts/callgrind.sh --record"
        return 1
    fi
    awk -v name="$1" -v now="$2" -v before="$3" -v limit="$WARN_ABOVE_PERCENT" 'BEGIN {
        change = (now / before - 1) * 100
        printf "%-24s %22.1f %12.1f %+8.1f %%\n", name, now, before, change
        if (change > limit) {
            printf "warning: %s takes %.1f instructions per message, %.1f %% more than its" \
                " baseline of %.1f\n", name, now, change, before
            exit 1
        }
        if (change < -limit)
            printf "note: %s got cheaper: record it, or a later change may take it back unseen\n", name
    }'
}

# All kinds, in the order of the example.
record() {
    local name now file
    file=$(mktemp "$output/baselines.XXXXXX")
    {
        echo "# Instructions per message in the pure shard, written by perf-scripts/callgrind.sh" \
            "--record."
        echo "# Other versions of these shift the counts by some per cent:"
        echo "valgrind = \"$(version_of_valgrind)\""
        echo "rustc = \"$(version_of_rustc)\""
        echo
    } >"$file"
    for name in "${names[@]}"; do
        now=$(per_message "$name") || exit
        echo "$name = $now" | tee -a "$file"
    done
    mkdir -p "$(dirname "$BASELINES")"
    chmod 644 "$file"
    mv "$file" "$BASELINES"
    say "wrote $BASELINES"
}

# Of a kind or a tool; empty where there is none.
baseline() {
    sed -n "s/^$1 = //p" "$BASELINES"
}

version_of_valgrind() {
    valgrind --version | sed 's/^valgrind-//'
}

version_of_rustc() {
    (cd "$repository" && rustc --version) | cut -d ' ' -f 2
}

# Counted once.
per_message() {
    local few=$((rounds / 4)) counted more
    counted=$(difference "$1" "$rounds" "$few") || return
    more=$(($("$messages" "$1" "$rounds") - $("$messages" "$1" "$few")))
    awk -v counted="$counted" -v more="$more" 'BEGIN { printf "%.1f\n", counted / more }'
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

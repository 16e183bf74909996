#!/usr/bin/env bash
# Where Leveret's time goes under a scenario: flame graphs as SVG, one for each shard and one for
# the whole process. With --off-cpu also where each shard waits, in microseconds.
#
#   perf-scripts/flamegraph.sh [--scenario NAME] [--shards N] [--seconds N] [--off-cpu] [--dwarf]
#                              [--frequency HZ] [--no-build] [--output DIR]
#
#   --scenario   what puts the broker under load (throughput-16b)
#   --shards     shards, on cores 0 to N-1; the load takes the next core (1)
#   --seconds    measured seconds (5)
#   --off-cpu    records the scheduler too; mostly that takes root
#   --dwarf      unwinds by debug information: deeper in foreign libraries, bigger files
#   --frequency  samples per second and core (999)
#   --no-build   takes the release binaries that are there
#   --output     where the pictures go (target/flamegraph)
#
# Samples are taken by the kernel's clock (cpu-clock), so that no hardware counter is needed. The
# broker is built once more, with frame pointers, in a directory of its own.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

readonly FIELDS=comm,pid,tid,time,event,ip,sym,dso
scenario=throughput-16b shards=1 seconds=5 frequency=999 off_cpu=no unwind=fp build=yes
output=$target/flamegraph

main() {
    read_arguments "$@"
    load_core=$shards
    (($(nproc --all) > shards)) ||
        fail "$shards shard(s) and the load need $((shards + 1)) cores, there are $(nproc --all)"
    require taskset "apt-get install util-linux"
    require perf "apt-get install linux-perf"
    event=$(find_event) || fail "perf may not sample: run as root, or" \
        "sysctl kernel.perf_event_paranoid=1 (perf-scripts/tune.sh says more)"
    [[ $event == cpu-clock ]] ||
        say "kernel frames are left out: for them run as root, or set kernel.perf_event_paranoid=1"
    if [[ $off_cpu == yes ]] && ! sees_scheduler; then
        say "waiting cannot be recorded: perf may not use sched:sched_switch (it needs root, or" \
            "kernel.perf_event_paranoid=-1 and a readable /sys/kernel/tracing); going on without"
        off_cpu=no
    fi
    if [[ $build == yes ]]; then
        build "$target" leveret-bench
        RUSTFLAGS="${RUSTFLAGS-} -C force-frame-pointers=yes" \
            build "$target/frame-pointers" leveret-server
    fi
    begin_work
    start_leveret "$target/frame-pointers/release/leveret" "0-$((shards - 1))" "$shards"
    record
    draw
}

read_arguments() {
    while (($#)); do
        case $1 in
            --shards | --seconds | --frequency)
                want_number "$@"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --scenario | --output)
                [[ -n ${2-} ]] || wrong "$1 needs a value"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --off-cpu) off_cpu=yes ;;
            --dwarf) unwind=dwarf ;;
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

# With the kernel's frames, or without where perf may not see them: it would just leave them out.
find_event() {
    local event=cpu-clock:u
    if [[ $(id -u) == 0 ]] || (($(</proc/sys/kernel/perf_event_paranoid) <= 1)); then
        event=cpu-clock
    fi
    perf record -e "$event" -o /dev/null -- true >/dev/null 2>&1 && echo "$event"
}

sees_scheduler() {
    perf record -C 0 -e sched:sched_switch -o /dev/null -- true >/dev/null 2>&1
}

# Puts the broker under load and samples it from beginning to end. An idle broker takes no samples.
record() {
    local recorders=()
    say "recording $scenario for $seconds s at $frequency Hz, $event, unwinding by $unwind"
    perf record --quiet -e "$event" -F "$frequency" --call-graph "$unwind" -p "$leveret_pid" \
        -o "$work/cpu.data" 2>"$work/perf.log" &
    recorders+=("$!")
    if [[ $off_cpu == yes ]]; then
        # By core, because the end of a wait is recorded by whoever ran before.
        perf record --quiet -e sched:sched_switch --call-graph fp -C "0-$((shards - 1))" \
            -o "$work/switches.data" 2>"$work/perf-sched.log" &
        recorders+=("$!")
    fi
    started+=("${recorders[@]}")
    # Until perf is attached.
    sleep 1
    "$target/release/leveret-bench" run "$scenario" --broker "${brokers[1]}" --runs 1 \
        --seconds "$seconds" --load-core "$load_core" --no-floor --out "$work" ||
        fail "the load failed: a picture of that would mislead"
    # A background process of a script does not hear SIGINT unless it asks for it, as perf does.
    kill -INT "${recorders[@]}"
    wait "${recorders[@]}" || true
}

draw() {
    local task thread where="Leveret, $scenario"
    script cpu.data "$FIELDS" >"$work/all.txt"
    picture all.txt "$output/all.svg" "$where: all threads"
    for task in "/proc/$leveret_pid/task/"*; do
        thread=$(<"$task/comm")
        [[ $thread == shard-* ]] || continue
        script cpu.data "$FIELDS" --tid="${task##*/}" >"$work/$thread.txt"
        picture "$thread.txt" "$output/$thread.svg" "$where: $thread"
        [[ $off_cpu == yes ]] || continue
        script switches.data "$FIELDS,trace" |
            fold_waits "${task##*/}" "$thread" >"$work/$thread-off.txt"
        if [[ -s $work/$thread-off.txt ]]; then
            picture "$thread-off.txt" "$output/$thread-off-cpu.svg" "$where: where $thread waits"
        else
            say "$thread has never left its core: there is no picture of its waiting"
        fi
    done
}

# Recorded data in $work, fields, and more arguments of perf script. Inlined functions keep their
# own frames, which takes addr2line.
script() {
    local inline=--inline
    command -v addr2line >/dev/null || inline=--no-inline
    perf script -i "$work/$1" -F "$2" "$inline" "${@:3}" 2>"$work/perf-script.log" ||
        fail "perf script failed: $(tail -n 3 "$work/perf-script.log")"
}

# Stacks as text in $work, picture, title.
picture() {
    "$target/release/leveret-bench" flamegraph "$work/$1" "$2" --title "$3"
    say "picture: $2"
}

# Reads sched_switch events; prints "thread;frame;frame MICROSECONDS" for thread id $1, named $2:
# how long it was away from its core, under the stack with which it left.
fold_waits() {
    awk -v tid="$1" -v thread="$2" '
        /sched:sched_switch/ {
            for (field = 1; field <= NF && $field !~ /^[0-9]+\.[0-9]+:$/; field++);
            now = $field + 0
            leaves = ($0 ~ ("prev_pid=" tid " "))
            if ($0 ~ ("next_pid=" tid " ") && left) {
                waited[stack] += (now - left) * 1e6
                left = 0
            }
            if (leaves) { left = now; stack = "" }
            next
        }
        leaves && NF >= 2 {
            name = $2
            for (field = 3; field < NF; field++) name = name " " $field
            sub(/\+0x[0-9a-f]+$/, "", name)
            gsub(/;/, ":", name)
            stack = ";" name stack
        }
        END { for (stack in waited) printf "%s%s %d\n", thread, stack, waited[stack] }
    '
}

main "$@"

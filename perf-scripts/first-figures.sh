#!/usr/bin/env bash
# The first figures: Leveret and RabbitMQ, each alone on core 0, under the load of leveret-bench on
# core 1, interleaved run by run. Leaves a Markdown report and stops what it has started.
#
#   perf-scripts/first-figures.sh [--runs N] [--seconds N] [--connections N] [--backlog N]
#                                 [--leveret-only] [--no-build] [--output DIR]
#
# Works on a stock Debian; says what is missing. Everything stays on loopback and below one
# directory; ports are free ones, and an installed RabbitMQ node is neither used nor disturbed.
set -euo pipefail

readonly BROKER_CORE=0
readonly LOAD_CORE=1
# A cold start of RabbitMQ takes 5 to 10 s, more on a busy machine.
readonly START_TIMEOUT_S=120
# Where Debian keeps the start script that does not change user or directory.
readonly RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server
# Length of the run under strace or perf, which is not measured for speed.
readonly TRACE_SECONDS=2

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$repository/target}")
runs=5 seconds=2 connections=2000 backlog=500000 leveret_only=no build=yes
output=$target/first-figures
started=()

main() {
    read_arguments "$@"
    require taskset "apt-get install util-linux"
    [[ $(nproc --all) -ge 2 ]] || fail "two cores are needed: one for the broker, one for the load"
    umask 077
    mkdir -p "$output"
    output=$(cd "$output" && pwd)
    work=$(mktemp -d "$output/run.XXXXXX")
    trap stop_all EXIT
    trap 'exit 130' INT TERM

    if [[ $build == yes ]]; then
        require cargo "https://rustup.rs"
        say "building release binaries in $target/release"
        (cd "$repository" && CARGO_TARGET_DIR=$target \
            cargo build --release --quiet -p leveret-server -p leveret-bench)
    fi

    brokers=()
    # RabbitMQ comes first: the report compares with the first broker.
    if [[ $leveret_only == no ]]; then
        start_rabbitmq
    fi
    start_leveret
    measure
    count_system_calls
    say "report:       $output/report.md"
    say "system calls: $output/system-calls.txt"
    return "$failed"
}

read_arguments() {
    while (($#)); do
        case $1 in
            --runs | --seconds | --connections | --backlog)
                [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number"
                printf -v "${1#--}" %s "$2"
                shift 2
                ;;
            --output)
                [[ -n ${2-} ]] || fail "--output needs a directory"
                output=$2
                shift 2
                ;;
            --leveret-only)
                leveret_only=yes
                shift
                ;;
            --no-build)
                build=no
                shift
                ;;
            *)
                sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
                [[ $1 == --help ]] && exit 0
                fail "unknown argument $1"
                ;;
        esac
    done
}

start_leveret() {
    local ports log=$work/leveret.log
    read -r -a ports <<<"$(free_ports 1)"
    say "starting Leveret on 127.0.0.1:${ports[0]}, core $BROKER_CORE, one shard"
    # `exec` through taskset: the process id is the broker's own.
    taskset -c "$BROKER_CORE" "$target/release/leveret" serve --shards 1 \
        --listen "127.0.0.1:${ports[0]}" --http none --metrics none \
        --data-dir "$work/leveret-data" >"$log" 2>&1 &
    leveret_pid=$!
    started+=("$leveret_pid")
    leveret=leveret=127.0.0.1:${ports[0]},pid=$leveret_pid
    wait_for_port "${ports[0]}" "$leveret_pid" "$log"
    brokers+=(--broker "$leveret")
}

start_rabbitmq() {
    if [[ ! -x $RABBITMQ ]]; then
        fail "RabbitMQ is missing: apt-get install --no-install-recommends rabbitmq-server" \
            "(or measure Leveret alone: --leveret-only)"
    fi
    require epmd "apt-get install erlang-base"
    local ports log=$work/rabbitmq.log home=$work/rabbitmq
    read -r -a ports <<<"$(free_ports 3)"
    mkdir -p "$home/log"
    printf '[].\n' >"$home/enabled_plugins"
    printf 'log.console = false\nlog.file.level = error\n' >"$home/rabbitmq.conf"
    say "starting RabbitMQ on 127.0.0.1:${ports[0]}, core $BROKER_CORE, one scheduler"
    ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "${ports[2]}" >"$work/epmd.log" 2>&1 &
    started+=("$!")
    # One scheduler for one core. Schedulers that spin would count as work.
    env -u RABBITMQ_CONFIG_FILES HOME="$home" ERL_EPMD_PORT="${ports[2]}" \
        RABBITMQ_NODENAME="figures-${ports[0]}@localhost" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="${ports[0]}" \
        RABBITMQ_DIST_PORT="${ports[1]}" RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_MNESIA_BASE="$home/mnesia" \
        RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none" \
        taskset -c "$BROKER_CORE" "$RABBITMQ" -noinput >"$log" 2>&1 </dev/null &
    local pid=$!
    started+=("$pid")
    wait_for_port "${ports[0]}" "$pid" "$log"
    # The port opens a moment before the node has finished its boot.
    sleep 3
    brokers+=(--broker "rabbitmq=127.0.0.1:${ports[0]},pid=$pid")
}

measure() {
    say "measuring: $runs runs of $seconds s per throughput scenario, $connections connections," \
        "$backlog waiting messages"
    failed=0
    "$target/release/leveret-bench" first "${brokers[@]}" --core "$LOAD_CORE" --runs "$runs" \
        --seconds "$seconds" --connections "$connections" --backlog "$backlog" \
        >"$output/report.md" || failed=1
    cat "$output/report.md"
    if ((failed)); then
        say "some runs failed, see the end of the report; logs: $work"
    fi
}

# How often Leveret enters the kernel per message, under 16 B without and with acks. Whatever counts
# the calls also slows the broker down, so nothing here is a speed.
count_system_calls() {
    local scenario counts
    : >"$output/system-calls.txt"
    if ! tracer=$(find_tracer); then
        say "system calls are not counted: strace is missing (apt-get install strace), and perf" \
            "is missing or may not use tracepoints" | tee -a "$output/system-calls.txt"
        return
    fi
    for scenario in auto-ack confirms; do
        counts=$work/calls-$scenario.txt
        say "counting system calls of Leveret, $scenario, with $tracer"
        start_tracer "$tracer" "$counts"
        "$target/release/leveret-bench" first --broker "$leveret" --core "$LOAD_CORE" --runs 1 \
            --seconds "$TRACE_SECONDS" --scenario "$scenario" >"$work/traced-$scenario.md" || true
        # A background process of a script does not hear SIGINT, unless it asks for it as perf does.
        kill "-$tracer_signal" "$tracer_pid" 2>/dev/null || true
        wait "$tracer_pid" || true
        print_calls "$scenario" "$counts" "$work/traced-$scenario.md" |
            tee -a "$output/system-calls.txt"
    done
}

# perf is far cheaper than strace, where the kernel lets us use it.
find_tracer() {
    local trial
    if trial=$(perf stat -x ' ' -e raw_syscalls:sys_enter true 2>&1) &&
        [[ $trial =~ ^[1-9][0-9]*\ .*raw_syscalls ]]; then
        echo perf
    elif command -v strace >/dev/null; then
        echo strace
    else
        return 1
    fi
}

start_tracer() {
    if [[ $1 == perf ]]; then
        perf stat -x ' ' -e raw_syscalls:sys_enter -o "$2" -p "$leveret_pid" &
        tracer_signal=INT
    else
        strace -c -f -o "$2" -p "$leveret_pid" 2>"$work/strace.log" &
        tracer_signal=TERM
    fi
    tracer_pid=$!
    # Until it is attached.
    sleep 1
}

# Scenario, file of the tracer, report of the bench.
print_calls() {
    local messages calls
    messages=$(sed -n 's/^\* leveret carried \([0-9]*\) messages.*/\1/p' "$3")
    # strace: "100.00 seconds usecs calls [errors] total"; perf: "count  raw_syscalls:sys_enter …".
    calls=$(awk '$NF == "total" { print $4 } /raw_syscalls/ { print $1 }' "$2")
    if [[ -z $calls || ${messages:-0} == 0 ]]; then
        echo "$1: could not be counted, see $2 and $3"
        return
    fi
    awk -v scenario="$1" -v calls="$calls" -v messages="$messages" 'BEGIN {
        printf "%s: %d system calls for %d messages: one per %.1f messages\n",
            scenario, calls, messages, messages / calls
    }'
    if grep -q '% time' "$2"; then
        head -n 8 "$2"
    fi
}

# Ports that nobody listens on, below those that the kernel gives to clients.
free_ports() {
    local port found=()
    for ((port = 20000 + RANDOM % 10000; ${#found[@]} < $1; port++)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            found+=("$port")
        fi
    done
    echo "${found[@]}"
}

# Port, process that should listen on it, its log.
wait_for_port() {
    local deadline=$((SECONDS + START_TIMEOUT_S))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || fail "it ended at once:" "$(tail -n 20 "$3")"
        ((SECONDS < deadline)) || fail "it does not listen after $START_TIMEOUT_S s:" \
            "$(tail -n 20 "$3")"
        sleep 0.2
    done
}

# Ends what was started, by process id, children included: the start script of RabbitMQ is a shell.
stop_all() {
    local status=$? pid
    trap - EXIT
    for pid in "${started[@]}"; do
        stop_tree "$pid" TERM
    done
    local deadline=$((SECONDS + 20))
    for pid in "${started[@]}"; do
        while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.2
        done
        stop_tree "$pid" KILL
    done
    wait
    # Logs are of use only where something went wrong.
    if ((status == 0)); then
        rm -rf "$work"
    fi
    exit "$status"
}

stop_tree() {
    local child
    for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
        stop_tree "$child" "$2"
    done
    kill "-$2" "$1" 2>/dev/null || true
}

require() {
    command -v "$1" >/dev/null || fail "$1 is missing: $2"
}

say() {
    echo "first-figures: $*"
}

fail() {
    echo "first-figures: $*" >&2
    exit 1
}

main "$@"

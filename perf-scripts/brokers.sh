# Sourced by the other scripts: starts brokers on loopback, with free ports and below one private
# directory, and ends by process id all that was started. Nothing here touches an installed node.
# shellcheck shell=bash

# Where Debian keeps the start script that does not change user or directory.
readonly RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server
# A cold start of RabbitMQ takes 5 to 10 s, more on a busy machine.
readonly START_TIMEOUT_S=120
# A broker that was asked to end and has not by then is killed.
readonly STOP_TIMEOUT_S=20

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by the scripts
target=$(realpath -m "${CARGO_TARGET_DIR:-$repository/target}")
started=()
brokers=()

say() {
    echo "$(basename "$0" .sh): $*"
}

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    exit 1
}

# For wrong arguments: the comment at the head of the script, and what was wrong.
wrong() {
    print_head >&2
    echo "$(basename "$0" .sh): $*" >&2
    exit 2
}

print_head() {
    sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p}' "$0"
}

require() {
    command -v "$1" >/dev/null || fail "$1 is missing: $2"
}

# Option and its value.
want_number() {
    [[ ${2-} =~ ^[1-9][0-9]*$ ]] || wrong "$1 needs a number from 1"
}

# Makes the directory for results ($output) and a private one in it for brokers and logs ($work),
# which goes at the end, unless something went wrong.
begin_work() {
    umask 077
    mkdir -p "$output"
    output=$(cd "$output" && pwd)
    work=$(mktemp -d "$output/run.XXXXXX")
    trap stop_all EXIT
    trap 'exit 130' INT TERM
}

# Builds the packages named, in release, into $1 (a directory for cargo).
build() {
    local into=$1 package packages=()
    shift
    require cargo "https://rustup.rs"
    for package in "$@"; do
        packages+=(-p "$package")
    done
    say "building $* in $into/release"
    (cd "$repository" && CARGO_TARGET_DIR=$into cargo build --release --quiet "${packages[@]}")
}

# Binary, core list for taskset, shards, name if not leveret, options of `serve`. Sets leveret_pid
# and leveret_address.
start_leveret() {
    local port name=${4:-leveret} log=$work/${4:-leveret}.log
    port=$(free_ports 1)
    say "starting Leveret on 127.0.0.1:$port, cores $2, $3 shard(s)"
    # `taskset` becomes the broker: the process id is its own.
    taskset -c "$2" "$1" serve --shards "$3" --listen "127.0.0.1:$port" --http none \
        --metrics none --data-dir "$work/$name-data" "${@:5}" >"$log" 2>&1 &
    leveret_pid=$!
    leveret_address=127.0.0.1:$port
    started+=("$leveret_pid")
    wait_for_port "$port" "$leveret_pid" "$log"
    brokers+=(--broker "$name=amqp://guest:guest@$leveret_address,pid=$leveret_pid")
}

# Core list for taskset, schedulers.
start_rabbitmq() {
    require epmd "apt-get install erlang-base"
    local ports log=$work/rabbitmq.log home=$work/rabbitmq
    read -r -a ports <<<"$(free_ports 3)"
    mkdir -p "$home/log"
    printf '[].\n' >"$home/enabled_plugins"
    printf 'log.console = false\nlog.file.level = error\n' >"$home/rabbitmq.conf"
    say "starting RabbitMQ on 127.0.0.1:${ports[0]}, cores $1, $2 scheduler(s)"
    ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "${ports[2]}" >"$work/epmd.log" 2>&1 &
    started+=("$!")
    # Schedulers that spin while they wait would count as work.
    env -u RABBITMQ_CONFIG_FILES HOME="$home" ERL_EPMD_PORT="${ports[2]}" \
        RABBITMQ_NODENAME="bench-${ports[0]}@localhost" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="${ports[0]}" \
        RABBITMQ_DIST_PORT="${ports[1]}" RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_MNESIA_BASE="$home/mnesia" \
        RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S $2:$2 +sbwt none +sbwtdcpu none +sbwtdio none" \
        taskset -c "$1" "$RABBITMQ" -noinput >"$log" 2>&1 </dev/null &
    local pid=$!
    started+=("$pid")
    wait_for_port "${ports[0]}" "$pid" "$log"
    # The port opens a moment before the node has finished its boot.
    sleep 3
    brokers+=(--broker "rabbitmq=amqp://guest:guest@127.0.0.1:${ports[0]},pid=$pid")
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
    local deadline=$((SECONDS + STOP_TIMEOUT_S))
    for pid in "${started[@]}"; do
        while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.2
        done
        stop_tree "$pid" KILL
    done
    wait
    if ((status == 0)); then
        rm -rf "$work"
    else
        echo "$(basename "$0" .sh): logs are in $work" >&2
    fi
    exit "$status"
}

stop_tree() {
    local child children=()
    read -r -a children 2>/dev/null <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do
        stop_tree "$child" "$2"
    done
    kill "-$2" "$1" 2>/dev/null || true
}

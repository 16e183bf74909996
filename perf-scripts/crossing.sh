#!/usr/bin/env bash
# What it costs that publisher, queue and consumer are on different shards: the same flow through
# Leveret with one shard and with two or more, interleaved run by run. The ratio to read is
# *messages per broker CPU second*: it counts all threads of a broker.
#
#   perf-scripts/crossing.sh [--bytes 'N …'] [--acks] [--rate N] [--shards N] [--runs N]
#                            [--seconds N] [--broker BINARY] [--polling] [--no-build]
#                            [--output DIR]
#
#   --bytes     octets of a body ('16 1024 65536')
#   --acks      with confirms and manual acks instead of neither
#   --rate      messages per second instead of all that go: what does a hop add to the latency?
#   --shards    of the broker in which messages cross (2)
#   --runs      runs per flow and broker (5)
#   --seconds   measured seconds of a run (2)
#   --broker    a binary of Leveret other than the one that is built here
#   --polling   lets idle shards poll before they sleep, as they do by default
#   --no-build  takes the release binaries that are there
#   --output    where the report goes (target/crossing)
#
# `deliver-hop` declares queue, consumer and publisher in this order, so that with two shards they
# are on A, B, A: deliveries cross. `publish-hop` puts a bystander behind the queue: A, A, B, and
# publishes cross. With three shards deliver-hop is A, B, C: both cross. With one, all is on it.
#
# Shards have a core each, from core 0 on; the load has the one behind them. Where none is left, it
# shares the last one with a shard: then rates mean nothing, and CPU time per message still does.
# Polling would count as work: with two shards one often waits for the other, above all with large
# bodies, where the kernel's copies leave a shard little to do.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

bytes='16 1024 65536' acks=no rate='' shards=2 runs=5 seconds=2 broker='' build=yes polling=no options=()
output=$target/crossing

main() {
    read_arguments "$@"
    local cores last load_core
    cores=$(nproc)
    ((cores >= 2)) || fail "two cores are needed: shards that share one do not cross caches"
    require taskset "apt-get install util-linux"
    if [[ $build == yes ]]; then
        build "$target" leveret-server leveret-bench
    fi
    begin_work
    if [[ $polling == no ]]; then
        echo 'spin_us = 0' >"$work/options.toml"
        options=(--config "$work/options.toml")
    fi
    last=$((shards < cores ? shards - 1 : cores - 1))
    load_core=$((shards < cores ? shards : cores - 1))
    broker=${broker:-$target/release/leveret}
    # Ratios compare with the first.
    start_leveret "$broker" 0 1 one-shard "${options[@]}"
    start_leveret "$broker" "0-$last" "$shards" "$shards-shards" "${options[@]}"
    measure "$load_core"
}

read_arguments() {
    while (($#)); do
        case $1 in
            --rate | --shards | --runs | --seconds)
                want_number "$@"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --bytes | --broker | --output)
                [[ -n ${2-} ]] || wrong "$1 needs a value"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --acks) acks=yes ;;
            --polling) polling=yes ;;
            --no-build) build=no ;;
            --help)
                print_head
                exit 0
                ;;
            *) wrong "unknown argument $1" ;;
        esac
        shift
    done
    ((shards >= 2)) || wrong "--shards needs 2 at least"
}

measure() {
    local size hop scenarios=() status=0
    for size in $bytes; do
        [[ $size =~ ^[0-9]+$ ]] || wrong "--bytes needs numbers"
        for hop in deliver-hop publish-hop; do
            write_scenario "$hop" "$size" >"$work/$hop-$size.toml"
            scenarios+=(--scenario-file "$work/$hop-$size.toml")
        done
    done
    say "measuring $((${#scenarios[@]} / 2)) flows: $runs runs of $seconds s each"
    "$target/release/leveret-bench" run "${scenarios[@]}" "${brokers[@]}" --runs "$runs" \
        --seconds "$seconds" --load-core "$1" --no-floor --out "$output" || status=$?
    say "report: $output/report.md"
    ((status == 0)) || fail "leveret-bench ended with $status: the report, if any, says what failed"
}

# Path, octets of a body.
write_scenario() {
    cat <<TOML
title = "$1, $2 B, acks: $acks"
question = "What does it cost that messages change shards on their way?"
transport = "io-uring"

[load.flow]
body_bytes = $2
bystanders = $([[ $1 == publish-hop ]] && echo 1 || echo 0)
TOML
    [[ -z $rate ]] || echo "rate_per_s = $rate.0"
    if [[ $acks == yes ]]; then
        printf 'confirm_window = 1000\nprefetch = 1000\nack_every = 100\n'
    fi
}

main "$@"

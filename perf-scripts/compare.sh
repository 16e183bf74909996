#!/usr/bin/env bash
# Leveret, RabbitMQ and the floor under the same scenarios, interleaved run by run; leaves an HTML
# report that needs nothing else. Brokers and floor have core 0, one shard or scheduler each; the
# load has core 1.
#
#   perf-scripts/compare.sh [--install] [--all | --goals | --beside | --scenarios 'GLOB GLOB …']
#                           [--runs N] [--seconds N] [--leveret-only] [--no-build] [--output DIR]
#
#   --install       installs what is missing with apt-get, as root; without it nothing is installed
#   --all           all scenarios instead of the ten of the default: hours, not minutes
#   --goals         those that have a goal, and which goals are met (docs/BENCHMARKS.md)
#   --beside        what it costs a flow that others are there, the second table of that page; without
#                   --leveret-only RabbitMQ too has to make a million bindings
#   --scenarios     those whose names match: 'throughput-* rpc-*'; `leveret-bench list` has all
#   --runs          runs per scenario and broker (3)
#   --seconds       measured seconds of a run (2)
#   --leveret-only  without RabbitMQ
#   --no-build      takes the release binaries that are there
#   --output        where the report goes (target/compare); the last results.json there becomes
#                   previous.json
#
# Works on a stock Debian 12 with Rust. Everything stays on loopback, on free ports and below the
# output directory; an installed RabbitMQ node is neither used nor disturbed.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

readonly BROKER_CORE=0
readonly LOAD_CORE=1
# One for each kind of question, none that takes long: under ten minutes with two brokers. None with
# durable queues: what a confirm means there differs (docs/DURABILITY.md), so they are asked for by
# name: 'durable-window-* unflushed-*'.
scenarios=(throughput-16b throughput-1k throughput-64k manual-ack-16b confirms-1k fanout-10
    topic-1k headers rpc-reply-queue latency-1k)
runs=3 seconds=2 install=no leveret_only=no build=yes goals=no
output=$target/compare

main() {
    read_arguments "$@"
    [[ $(nproc --all) -ge 2 ]] || fail "two cores are needed: one for the broker, one for the load"
    find_rabbitmq
    require taskset "apt-get install util-linux"
    if [[ $build == yes ]]; then
        build "$target" leveret-server leveret-bench
    fi
    begin_work
    # RabbitMQ comes first: ratios compare with the first broker.
    if [[ $leveret_only == no ]]; then
        start_rabbitmq "$BROKER_CORE" 1
    fi
    start_leveret "$target/release/leveret" "$BROKER_CORE" 1
    measure
}

read_arguments() {
    while (($#)); do
        case $1 in
            --runs | --seconds)
                want_number "$@"
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --scenarios)
                [[ -n ${2-} ]] || wrong "--scenarios needs globs"
                # Globs for leveret-bench, not for files of the present directory.
                read -r -a scenarios <<<"$2"
                shift
                ;;
            --output)
                [[ -n ${2-} ]] || wrong "--output needs a directory"
                output=$2
                shift
                ;;
            --all) scenarios=('*') ;;
            --goals) goals=speed ;;
            --beside) goals=beside ;;
            --install) install=yes ;;
            --leveret-only) leveret_only=yes ;;
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

find_rabbitmq() {
    [[ $leveret_only == yes || -x $RABBITMQ ]] && return
    if [[ $install == no ]]; then
        fail "RabbitMQ is missing: give --install, or apt-get install --no-install-recommends" \
            "rabbitmq-server, or measure Leveret alone with --leveret-only"
    fi
    [[ $(id -u) == 0 ]] || fail "--install needs root, or: sudo apt-get install rabbitmq-server"
    say "installing rabbitmq-server"
    # Debian asks this file whether a package may start its service: a second node would be load.
    local policy=/usr/sbin/policy-rc.d ours=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=yes
    fi
    local status=0
    apt-get update --quiet --quiet &&
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
            rabbitmq-server util-linux || status=$?
    if [[ $ours == yes ]]; then
        rm -f "$policy"
    fi
    ((status == 0)) || fail "apt-get could not install it, see above"
    [[ -x $RABBITMQ ]] || fail "there is no $RABBITMQ: not Debian's package?"
}

measure() {
    local bench=$target/release/leveret-bench
    [[ $goals == no ]] || mapfile -t scenarios < <("$bench" goals --table "$goals" --list)
    say "measuring ${scenarios[*]}: $runs runs of $seconds s each"
    local status=0
    # An older report must not be taken for this one; its figures stay, for `leveret-bench compare`.
    [[ ! -f $output/results.json ]] || mv "$output/results.json" "$output/previous.json"
    rm -f "$output/report.md" "$output/report.html"
    "$bench" run "${scenarios[@]}" "${brokers[@]}" --runs "$runs" \
        --seconds "$seconds" --load-core "$LOAD_CORE" --floor-core "$BROKER_CORE" \
        --out "$output" || status=$?
    if [[ -f $output/report.html ]]; then
        say "report:       $output/report.html"
        say "as Markdown:  $output/report.md"
        say "for machines: $output/results.json"
        if [[ $goals != no ]]; then
            "$bench" goals --table "$goals" "$output/results.json"
        fi
    fi
    ((status == 0)) || fail "leveret-bench ended with $status: the report, if any, says what failed"
}

main "$@"

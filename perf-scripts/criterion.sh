#!/usr/bin/env bash
# Nanoseconds of each part of the engine, by criterion, beside those of docs/CRITERION.md.
#
#   perf-scripts/criterion.sh [BENCH …] [--record] [--core N] [--no-build] [--output DIR]
#
#   BENCH       files of bench-suite/benches by name (all but mesh, which wants two cores)
#   --record    writes docs/CRITERION.md: the sections of the benches that were measured
#   --core      where they run (0)
#   --no-build  takes what is there, and builds only what is missing
#   --output    where criterion's files go (target/criterion-sh)
#
# On a shared host nanoseconds of two hours compare badly. So a fixed loop is measured just before
# each bench, and what is compared is the ratio to it. Even so this is a microscope, not a ratchet:
# nothing fails, and a change of some ten per cent says "look again", with `callgrind.sh` and
# interleaved runs. Short runs on purpose: ten samples of a twentieth of a second.
set -euo pipefail
# shellcheck source=perf-scripts/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"

readonly ALL=(codec table topic headers queue shard histogram)
readonly PAGE=$repository/docs/CRITERION.md
readonly SETTINGS=(--warm-up-time 0.2 --measurement-time 0.5 --sample-size 10)

benches=() start=() record=no core=0 build=yes
output=$target/criterion-sh

main() {
    read_arguments "$@"
    require cargo "https://rustup.rs"
    require taskset "apt-get install util-linux"
    local bench wanted=(--bench calibration)
    for bench in "${benches[@]}"; do
        [[ -f $repository/bench-suite/benches/$bench.rs ]] || wrong "there is no bench $bench"
        wanted+=(--bench "$bench")
    done
    if [[ $build == yes ]]; then
        say "building the benches in $target/release"
        cargo_bench "${wanted[@]}" --no-run || fail "cargo bench --no-run failed"
    fi
    mkdir -p "$output"
    output=$(cd "$output" && pwd)
    for bench in "${benches[@]}"; do
        measure "$bench"
        tabulate "$bench" >"$output/$bench.md"
        compare "$bench"
    done
    [[ $record == no ]] || write_page
}

read_arguments() {
    while (($#)); do
        case $1 in
            --record) record=yes ;;
            --no-build) build=no ;;
            --core)
                [[ ${2-} =~ ^[0-9]+$ ]] || wrong "--core needs a number"
                core=$2
                shift
                ;;
            --output)
                [[ -n ${2-} ]] || wrong "--output needs a directory"
                output=$2
                shift
                ;;
            --help)
                print_head
                exit 0
                ;;
            -*) wrong "unknown argument $1" ;;
            *) benches+=("$1") ;;
        esac
        shift
    done
    ((${#benches[@]})) || benches=("${ALL[@]}")
}

# Arguments of `cargo bench`, behind a command that starts it, if there is one.
cargo_bench() {
    (cd "$repository" && CARGO_TARGET_DIR=$target "${start[@]}" cargo bench --quiet \
        -p leveret-bench "$@")
}

measure() {
    say "measuring $1"
    local part home=$output/$1 start=(env "CRITERION_HOME=$output/$1" taskset -c "$core")
    rm -rf "$home"
    for part in calibration "$1"; do
        cargo_bench --bench "$part" -- "${SETTINGS[@]}" >"$output/$1-$part.log" 2>&1 ||
            fail "$part failed: $(tail -n 5 "$output/$1-$part.log")"
    done
}

# Rows of one bench: name, median in nanoseconds, ratio to the loop.
tabulate() {
    local file loop
    loop=$(median "$output/$1/"calibration*/new/estimates.json)
    echo '| bench | median | × the loop |'
    echo '|---|---:|---:|'
    while read -r file; do
        [[ $file == "$output/$1/"calibration* ]] && continue
        row "$(dirname "$file")" "$(median "$file")" "$loop"
    done < <(find "$output/$1" -path '*/new/estimates.json' | sort -V)
}

median() {
    sed -n 's/.*"median":{"confidence_interval":{[^}]*},"point_estimate":\([0-9.e+-]*\).*/\1/p' "$1"
}

# Time of one element where an iteration has several.
row() {
    local name elements
    name=$(sed -n 's/.*"full_id":"\([^"]*\)".*/\1/p' "$1/benchmark.json")
    elements=$(sed -n 's/.*"throughput":{"Elements":\([0-9]*\)}.*/\1/p' "$1/benchmark.json")
    awk -v name="$name" -v median="$2" -v loop="$3" -v elements="${elements:-1}" 'BEGIN {
        one = median / elements
        if (one < 1e3) shown = sprintf("%.1f ns", one)
        else if (one < 1e6) shown = sprintf("%.2f µs", one / 1e3)
        else shown = sprintf("%.2f ms", one / 1e6)
        printf "| %s | %s | %.4g |\n", name, shown, one / loop
    }'
}

# What was measured beside what the page says.
compare() {
    printf '%-56s %12s %14s %10s\n' "$1" median '× the loop' change
    awk -F ' *[|] *' 'FILENAME == ARGV[1] { before[$2] = $4; next }
        /^\| [a-z]+\// {
            change = before[$2] > 0 ? sprintf("%+.0f %%", ($4 / before[$2] - 1) * 100) : "-"
            printf "%-56s %12s %14s %10s\n", $2, $3, $4, change
        }' <(section "$1") "$output/$1.md"
}

# What the page has of a bench.
section() {
    [[ -f $PAGE ]] || return 0
    awk -v head="## $1" '/^## / { on = ($0 == head); next } on && /^\|/' "$PAGE"
}

write_page() {
    local bench rows page=$output/page.md
    {
        echo '# Criterion medians'
        echo
        echo "Made by \`perf-scripts/criterion.sh --record\`, not by hand. A bench that moves many"
        echo "messages in one iteration is shown per message. \"× the loop\" is the ratio to a loop of"
        echo "1,000 dependent multiplications (\`bench-suite/benches/calibration.rs\`), measured just"
        echo "before: it is what can be compared with another day or machine, and $(basename "$0")"
        echo "does. Why these figures warn nobody: \`BENCHMARKS.md\`."
        echo
        echo "Last written $(date -u +%Y-%m-%d) on: $(processor), Linux $(uname -r)," \
            "$(cd "$repository" && rustc --version)."
        for bench in "${ALL[@]}"; do
            rows=$(section "$bench")
            [[ " ${benches[*]} " != *" $bench "* ]] || rows=$(cat "$output/$bench.md")
            [[ -z $rows ]] || printf '\n## %s\n\n%s\n' "$bench" "$rows"
        done
    } >"$page"
    mv "$page" "$PAGE"
    say "wrote $PAGE"
}

processor() {
    sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1
}

main "$@"

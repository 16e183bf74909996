#!/usr/bin/env bash
# Shows what disturbs the cores of a measurement, and runs a command on them with as little noise as
# this user may arrange.
#
#   perf-scripts/isolate.sh [--cores LIST] [--fifo] [COMMAND [ARGUMENT …]]
#
#   --cores  cores as taskset writes them, for example 0 or 0-2 (0)
#   --fifo   real-time priority (SCHED_FIFO 1), as root: nothing else of the machine runs on these
#            cores while the command is busy, which a spinning command can make unusable
#   COMMAND  runs pinned, with the highest niceness allowed; without it nothing is run
#
# Nothing of the machine is changed. For cores that the kernel itself keeps free, boot with
# isolcpus=domain,managed_irq,LIST nohz_full=LIST rcu_nocbs=LIST.
set -euo pipefail

# A process that uses less than this share of a core while we look is not worth a line.
readonly BUSY_PERCENT_MIN=2
readonly LOOK_S=1
cores=0 fifo=no

main() {
    while (($#)); do
        case $1 in
            --cores)
                [[ ${2-} =~ ^[0-9]+([,-][0-9]+)*$ ]] || wrong "--cores needs a list such as 0-2"
                cores=$2
                shift 2
                ;;
            --fifo)
                fifo=yes
                shift
                ;;
            --help)
                print_head
                exit 0
                ;;
            -*) wrong "unknown argument $1" ;;
            *) break ;;
        esac
    done
    command -v taskset >/dev/null || fail "taskset is missing: apt-get install util-linux"
    taskset -c "$cores" true 2>/dev/null || fail "this process may not run on cores $cores"
    # All of it goes to standard error: standard output is the command's.
    show >&2
    if (($#)); then
        run "$@"
    fi
}

show() {
    say "cores $cores of $(cat /sys/devices/system/cpu/online)"
    say "kept free by the kernel: isolcpus $(kept isolated), nohz_full $(kept nohz_full)"
    say "hyper-threads that share them: $(siblings)"
    say "load average: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    say "interrupts that came to them in $LOOK_S s:"
    local before after
    before=$(interrupts)
    after=$(sleep "$LOOK_S" && interrupts)
    join <(sort <<<"$before") <(sort <<<"$after") | sort -n | awk '
        $4 > $2 { gsub("_", " ", $5); printf "    %-6s %8d  %s\n", $1, $4 - $2, $5; shown++ }
        END { if (!shown) print "    none" }
    '
    say "processes that used more than $BUSY_PERCENT_MIN % of a core in $LOOK_S s:"
    busy_processes
}

# What the kernel was told at boot.
kept() {
    local list=
    list=$(cat "/sys/devices/system/cpu/$1" 2>/dev/null || true)
    # The file of nohz_full says "(null)" where there is none.
    [[ -n $list && $list != "(null)" ]] && echo "$list" || echo none
}

siblings() {
    local core found=()
    for core in $(list_cores); do
        found+=("$(cat "/sys/devices/system/cpu/cpu$core/topology/thread_siblings_list" \
            2>/dev/null || echo '?')")
    done
    if [[ " ${found[*]} " == " $(list_cores) " ]]; then
        echo none
    else
        echo "${found[*]}"
    fi
}

# "0-2,5" as "0 1 2 5".
list_cores() {
    local range all=()
    for range in ${cores//,/ }; do
        local core
        for ((core = ${range%-*}; core <= ${range#*-}; core++)); do
            all+=("$core")
        done
    done
    echo "${all[*]}"
}

# "number count name" for each interrupt, counted on these cores.
interrupts() {
    awk -v cores="$(list_cores)" '
        NR == 1 { columns = NF; count = split(cores, wanted, " "); next }
        {
            sum = 0
            for (i = 1; i <= count; i++) sum += $(wanted[i] + 2)
            name = ""
            for (field = columns + 2; field <= NF; field++) name = name "_" $field
            sub(":", "", $1)
            print $1, sum, "(" substr(name, 2) ")"
        }
    ' /proc/interrupts
}

# Of all processes that may use the cores, those that do something.
busy_processes() {
    local before after
    before=$(ticks)
    sleep "$LOOK_S"
    after=$(ticks)
    join <(sort <<<"$before") <(sort <<<"$after") | awk -v tick="$(getconf CLK_TCK)" \
        -v seconds="$LOOK_S" -v least="$BUSY_PERCENT_MIN" '
        {
            percent = ($4 - $2) / tick / seconds * 100
            if (percent > least) {
                printf "    %-8s %5.0f %%  %s\n", $1, percent, $3
                shown++
            }
        }
        END { if (!shown) print "    none" }
    '
}

# "pid ticks name" for each process.
ticks() {
    local stat line rest fields
    for stat in /proc/[0-9]*/stat; do
        # A process that ends meanwhile has no file.
        read -r line 2>/dev/null <"$stat" || continue
        rest=${line##*) }
        read -r -a fields <<<"$rest"
        line=${line#*(}
        line=${line%)*}
        echo "$(basename "${stat%/stat}") $((fields[11] + fields[12])) ${line// /_}"
    done
}

run() {
    local command=(taskset -c "$cores")
    if [[ $fifo == yes ]]; then
        chrt --fifo 1 true 2>/dev/null || fail "--fifo needs root, or a limit of rtprio (ulimit -r)"
        command+=(chrt --fifo 1)
    elif [[ $(nice -n -20 nice 2>/dev/null) != -20 ]]; then
        say "niceness stays as it is: lowering it needs root"
    else
        command+=(nice -n -20)
    fi
    say "running: ${command[*]} $*"
    exec "${command[@]}" "$@"
}

say() {
    echo "isolate: $*"
}

fail() {
    echo "isolate: $*" >&2
    exit 1
}

wrong() {
    print_head >&2
    echo "isolate: $*" >&2
    exit 2
}

print_head() {
    sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p}' "$0"
}

main "$@"

#!/usr/bin/env bash
# Settings of the machine that matter for a broker under load, and for measuring one: what they are,
# what they should be, and why. Changes nothing unless asked to.
#
#   perf-scripts/tune.sh           shows
#   perf-scripts/tune.sh --apply   sets what is not as wanted, as root, and prints how to undo it
#
# What is set lasts until the next boot; limits are those of the shell that calls this script.
set -euo pipefail

apply=no
differ=0
failed=0
undo=()

main() {
    case ${1-} in
        '') ;;
        --apply) apply=yes ;;
        --help)
            print_head
            exit 0
            ;;
        *)
            print_head >&2
            echo "tune: unknown argument $1" >&2
            exit 2
            ;;
    esac
    if [[ $apply == yes && $(id -u) != 0 ]]; then
        echo "tune: --apply needs root: sudo $0 --apply" >&2
        exit 1
    fi
    show_row '' setting now wanted why
    sysctls
    limits
    files
    if [[ $apply == yes ]]; then
        printf '\ntune: %d of %d changed%s\n' "${#undo[@]}" "$differ" \
            "${undo[*]:+. To undo it, as root:}"
        ((${#undo[@]} == 0)) || printf '  %s\n' "${undo[@]}"
    elif ((differ)); then
        printf '\ntune: %d settings are not as wanted (!); --apply sets them\n' "$differ"
    else
        printf '\ntune: all is as wanted\n'
    fi
    return "$failed"
}

sysctls() {
    sysctl_row kernel.io_uring_disabled at-most 0 "Leveret and the load client live on io_uring"
    sysctl_row net.core.somaxconn at-least 4096 "connections that wait to be accepted"
    sysctl_row net.ipv4.tcp_max_syn_backlog at-least 4096 "the same, before their handshake ends"
    sysctl_row net.ipv4.ip_local_port_range is "32768 65535" \
        "each closed connection keeps a client port for a minute"
    sysctl_row net.ipv4.tcp_tw_reuse at-least 1 "lets connection churn use such ports again"
    sysctl_row net.core.rmem_max at-least 4194304 "upper limit of SO_RCVBUF, for large messages"
    sysctl_row net.core.wmem_max at-least 4194304 "upper limit of SO_SNDBUF"
    sysctl_row fs.nr_open at-least 1048576 "upper limit of open files of one process"
    sysctl_row vm.swappiness at-most 10 "a broker that swaps measures the disk"
    sysctl_row kernel.numa_balancing at-most 0 "moves pages about while one measures"
    sysctl_row kernel.sched_autogroup_enabled at-most 0 "shares cores out by terminal"
    sysctl_row kernel.nmi_watchdog at-most 0 "takes a hardware counter and interrupts every core"
    sysctl_row kernel.perf_event_paranoid at-most 1 "perf may sample, kernel frames included"
    sysctl_row kernel.kptr_restrict at-most 0 "perf may name the kernel's functions"
}

limits() {
    limit_row nofile n 65536 "a descriptor for each connection, on both sides"
    limit_row memlock l 65536 "KiB that io_uring may pin for buffers, unless root"
}

files() {
    local file found=no
    for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
        [[ -e $file ]] || continue
        found=yes
        file_row "$file" "$(<"$file")" performance "a clock that changes is noise"
    done
    if [[ $found == no ]]; then
        show_row '' "scaling governor" none performance "this machine has none, or hides it"
    fi
    file=/sys/kernel/mm/transparent_hugepage/enabled
    if [[ -e $file ]]; then
        file_row "$file" "$(sed 's/.*\[\(.*\)\].*/\1/' "$file")" madvise \
            "'always' makes resident memory grow in steps of 2 MiB"
    fi
}

# Name, rule, wanted, why.
sysctl_row() {
    local file=/proc/sys/${1//.//} now
    if ! now=$(tr -s '\t' ' ' 2>/dev/null <"$file"); then
        show_row '' "$1" - "$3" "$4 (this kernel does not have it)"
        return
    fi
    if fits "$now" "$2" "$3"; then
        show_row '' "$1" "$now" "$3" "$4"
        return
    fi
    show_row '!' "$1" "$now" "$3" "$4"
    set_value "$1" "echo '$now' >$file" "$file" "$3"
}

# Limit of the calling shell: name, letter for ulimit, at least, why.
limit_row() {
    local soft hard
    soft=$(ulimit -S"$2")
    hard=$(ulimit -H"$2")
    if [[ $soft == unlimited ]] || ((soft >= $3)); then
        show_row '' "limit of $1" "$soft" "$3" "$4"
        return
    fi
    show_row '!' "limit of $1" "$soft" "$3" "$4"
    # prlimit counts memory in bytes, ulimit in KiB.
    local unit=1
    if [[ $1 == memlock ]]; then
        unit=1024
    fi
    [[ $apply == yes ]] || return 0
    if prlimit --pid "$PPID" "--$1=$(($3 * unit)):$(($3 * unit))" 2>/dev/null; then
        undo+=("prlimit --pid $PPID --$1=$(bytes "$soft" $unit):$(bytes "$hard" $unit)")
    else
        refused "the limit of $1"
    fi
}

# File, now, wanted, why.
file_row() {
    if [[ $2 == "$3" ]]; then
        show_row '' "$(short "$1")" "$2" "$3" "$4"
        return
    fi
    show_row '!' "$(short "$1")" "$2" "$3" "$4"
    set_value "$1" "echo $2 >$1" "$1" "$3"
}

# Name, command that undoes it, file, value.
set_value() {
    [[ $apply == yes ]] || return 0
    if echo "$4" 2>/dev/null >"$3"; then
        undo+=("$2")
    else
        refused "$1"
    fi
}

refused() {
    echo "  could not set $1: the kernel, or the container that this runs in, forbids it"
    failed=1
}

fits() {
    case $2 in
        at-least) (($1 >= $3)) ;;
        at-most) (($1 <= $3)) ;;
        is) [[ $1 == "$3" ]] ;;
    esac
}

bytes() {
    [[ $1 == unlimited ]] && echo unlimited || echo $(($1 * $2))
}

short() {
    sed 's|^/sys/devices/system/cpu/||; s|^/sys/kernel/mm/||' <<<"$1"
}

# Mark, setting, now, wanted, why.
show_row() {
    if [[ $1 == '!' ]]; then
        differ=$((differ + 1))
    fi
    printf '%1s %-32s %-12s %-12s %s\n' "$@"
}

print_head() {
    sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p}' "$0"
}

main "$@"

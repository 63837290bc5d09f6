#!/bin/sh
# Proves the README's commands on a bare Debian 12: a fresh root, an ordinary user with sudo, a clone
# in a path with a space. Nothing of it stays, also after Ctrl-C.
#
#   sudo tests/fresh_root.sh                 compare, compare again, test, clean
#   sudo tests/fresh_root.sh setup doctor    these commands of ./workshop
#
# It takes apt's sources, certificates and pip's configuration from this host, so it works wherever
# this host can install packages. It needs root, mmdebstrap, git and about 5 GB in TMPDIR.
set -eu

say() { printf '\n== %s\n' "$*"; }

# --- inside: new mount, pid, ipc, uts and cgroup namespaces ------------------------------------

enter() {
    root=$1
    shift
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/pts dev/shm dev/net
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    for node in null zero full random urandom tty kvm fuse net/tun; do
        [ -c "/dev/$node" ] || continue
        : >"dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    done
    # The host's cgroup layout again, as seen from this cgroup namespace.
    awk '$2 ~ "^/sys/fs/cgroup(/|$)" { print $2, $3, $4 }' /proc/mounts |
        while read -r where type options; do
            mkdir -p ".$where" 2>/dev/null || :
            case $type in
            tmpfs) mount -t tmpfs -o mode=755 tmpfs ".$where" ;;
            cgroup2) mount -t cgroup2 cgroup2 ".$where" ;;
            cgroup) mount -t cgroup -o "${options#rw,relatime,}" cgroup ".$where" ;;
            esac
        done
    hostname fresh-root
    mkdir -p old
    # Not chroot(2): the kernel allows no user namespace in a chroot.
    pivot_root . old
    umount --lazy old
    rmdir old
    # This shell stays: as PID 1 it reaps what daemons leave behind.
    status=0
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@" || status=$?
    exit "$status"
}

if [ "${1:-}" = --enter ]; then
    shift
    enter "$@"
fi

# --- outside -----------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || { echo "fresh_root: root is needed: sudo $0" >&2; exit 1; }
for tool in mmdebstrap git unshare; do
    command -v "$tool" >/dev/null || { echo "fresh_root: $tool is missing: sudo ./workshop setup" >&2; exit 1; }
done
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
self=$repository/tests/fresh_root.sh
work=$(mktemp -d "${TMPDIR:-/tmp}/fresh-root.XXXXXX")
root=$work/root
group=fresh-root-$$
child=
home=/home/attendee
clone="$home/a clone of it"

# This host's cgroup hierarchies.
hierarchies() { awk '$3 ~ "^cgroup2?$" { print $2 }' /proc/mounts; }

at_exit() {
    status=$?
    trap '' INT TERM HUP
    # unshare(1) is deaf to SIGTERM while it waits; with it its PID 1 dies, and all below that.
    if [ -n "$child" ] && kill -KILL "$child" 2>/dev/null; then wait "$child" 2>/dev/null || :; fi
    hierarchies | while read -r hierarchy; do
        # Killed processes leave their groups a moment later.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            [ -d "$hierarchy/$group" ] || break
            find "$hierarchy/$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.2
        done
        [ ! -d "$hierarchy/$group" ] || echo "fresh_root: $hierarchy/$group could not be removed" >&2
    done
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# inside COMMAND...: runs it as root in the fresh root, in a cgroup of its own, and waits.
inside() {
    (
        hierarchies | while read -r hierarchy; do
            mkdir -p "$hierarchy/$group"
            # A new cpuset group has no CPU and takes no process.
            for file in cpuset.cpus cpuset.mems; do
                [ ! -f "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$group/$file"
            done 2>/dev/null
            echo 0 >"$hierarchy/$group/cgroup.procs"
        done
        exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child \
            sh "$self" --enter "$root" "$@"
    ) &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

# workshop COMMAND...: as the ordinary user, through sudo where the README does so; prints the time.
workshop() {
    say "./workshop $*"
    case $1 in doctor | lab) sudo='' ;; *) sudo='sudo ' ;; esac
    began=$(date +%s)
    inside su attendee -c "cd '$clone' && ${sudo}./workshop $*" || {
        code=$?
        echo "fresh_root: ./workshop $* ended with $code" >&2
        return "$code"
    }
    echo "== ./workshop $*: $(($(date +%s) - began)) s"
}

make_root() {
    say "a fresh Debian 12"
    sources=
    # shellcheck source=/dev/null
    . /etc/os-release
    if [ "${VERSION_CODENAME:-}" = bookworm ]; then
        sources=$(find /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null || :)
    fi
    # shellcheck disable=SC2086 # a list of files
    mmdebstrap --quiet --variant=minbase --include=git,ca-certificates,sudo bookworm "$root" $sources
    for path in /etc/apt/apt.conf.d /etc/apt/auth.conf.d /etc/apt/keyrings /etc/apt/trusted.gpg.d \
        /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates \
        /etc/pip.conf /etc/resolv.conf /etc/hosts; do
        [ -e "$path" ] || continue
        mkdir -p "$root$(dirname "$path")"
        cp -rL "$path" "$root$(dirname "$path")"
    done
    echo '127.0.1.1 fresh-root' >>"$root/etc/hosts"
    rm -f "$root/usr/sbin/policy-rc.d"
    chroot "$root" useradd --create-home --shell /bin/sh attendee
    # Proxies and certificates of this host, for the user and through sudo.
    env | grep -iE '^(https?_proxy|no_proxy|ssl_cert_(file|dir)|pip_(cert|index_url|proxy))=' \
        >"$root/etc/environment" || :
    {
        echo 'attendee ALL=(ALL) NOPASSWD: ALL'
        echo "Defaults env_keep += \"$(cut -d = -f 1 "$root/etc/environment" | tr '\n' ' ')\""
    } >"$root/etc/sudoers.d/attendee"
    git clone --quiet --no-hardlinks "$repository" "$root$clone"
    chroot "$root" chown -R attendee: "$home"
}

# Something of the run is wrong: say so, and fail in the end.
failed=
wrong() {
    echo "fresh_root: $*" >&2
    failed=yes
}

check_results() {
    run=$(find "$root$clone/results" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    for file in samples.jsonl environment.json report.html report.md; do
        [ -s "$run/$file" ] || wrong "results have no $file"
    done
    grep -q '"status": *"ok"' "$run/samples.jsonl" || wrong "samples.jsonl has no good sample"
    ! grep -qE '(src|href)="https?:' "$run/report.html" || wrong "report.html is not self-contained"
    foreign=$(find "$root$clone" -uid 0 | head -n 3)
    [ -z "$foreign" ] || wrong "files of root in the user's clone: $foreign"
}

check_clean() {
    for path in /var/cache/minicontainer "$home/.cache/minicontainer" /tmp/minicontainer*; do
        [ ! -e "$root$path" ] || wrong "clean left $path"
    done
}

make_root
if [ $# -gt 0 ]; then
    for command in "$@"; do workshop "$command" || failed=yes; done
else
    workshop compare || failed=yes
    check_results
    say "everything again"
    workshop compare || failed=yes
    check_results
    workshop doctor || failed=yes
    workshop test || failed=yes
    workshop clean --yes || failed=yes
    check_clean
fi
[ -z "$failed" ] || { say "failed"; exit 1; }
say "passed"

# The rest of init.sh, in the guest's root: what a distribution's init would set up, then the passes.
# Each result is a line of JSON on the port; what pytest prints goes to the console.
. /etc/v2-rig # REPOSITORY, PYTHON, and the tests of each pass: ROOT, LEARNER

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
export HOME=/root LOGNAME=root USER=root PYTHONDONTWRITEBYTECODE=1 V2_RIG_PORT=/dev/vport0p1

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,gid=0 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
ln -sf pts/ptmx /dev/ptmx
# The root is a tmpfs, which on many kernels has no attributes of a user's, and overlay needs them.
mkfs.ext4 -q -F -O ^has_journal /dev/vda
mount /dev/vda /mnt
for name in home root tmp var; do
    cp -a "/$name" /mnt
    mount --bind "/mnt/$name" "/$name"
done
chmod 1777 /tmp /var/tmp /dev/shm
chmod 666 "$V2_RIG_PORT"
hostname v2rig
ip link set lo up
echo 4 >/proc/sys/vm/nr_hugepages

# rig_pass NAME COMMAND...: with all that it says and how it ended.
rig_pass() {
    export V2_RIG_PASS="$1"
    shift
    status=0
    "$@" || status=$?
    echo "{\"pass\": \"$V2_RIG_PASS\", \"exit\": $status}" >"$V2_RIG_PORT"
}

# A learner's session, as systemd sets it up with Delegate=yes: below a group that is the learner's.
delegate() {
    group=/sys/fs/cgroup/learner
    controllers=$(sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers)
    mkdir -p "$group/session" /run/user/1000
    echo "$controllers" >/sys/fs/cgroup/cgroup.subtree_control
    for directory in "$group" "$group/session"; do
        chown 1000:1000 "$directory" "$directory"/cgroup.procs "$directory"/cgroup.threads \
            "$directory"/cgroup.subtree_control
    done
    chown -R 1000:1000 /home/learner /run/user/1000
    chmod 700 /run/user/1000
}

as_learner() {
    sh -c 'echo $$ >/sys/fs/cgroup/learner/session/cgroup.procs && exec "$@"' sh \
        setpriv --reuid=1000 --regid=1000 --init-groups --inh-caps=-all \
        env HOME=/home/learner LOGNAME=learner USER=learner XDG_RUNTIME_DIR=/run/user/1000 "$@"
}

cd "$REPOSITORY" || exit
set -f # a test's id may have brackets
# shellcheck disable=SC2086 # lists of words
rig_pass root "$PYTHON" -m pytest $OPTIONS $ROOT
delegate
# shellcheck disable=SC2086
rig_pass learner as_learner "$PYTHON" -m pytest $OPTIONS $LEARNER
echo '{"pass": "", "exit": 0}' >"$V2_RIG_PORT"
sync
poweroff -f

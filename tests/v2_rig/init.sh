#!/bin/sh
# The guest's first process: loads modules, makes /system the root, and goes on there.
/bin/busybox mkdir -p /dev
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
echo "v2 rig: the guest has started"
for module in /modules/*.ko; do
    /bin/busybox insmod "$module" || echo "v2 rig: no $module"
done
# As switch_root(8) does it, but without copying: then pivot_root(2) works for containers.
/bin/busybox mount --bind /system /system
cd /system || exit
/bin/busybox mount --move . /
. ./etc/v2-rig
exec /bin/busybox chroot . /bin/sh "$REPOSITORY/tests/v2_rig/passes.sh"

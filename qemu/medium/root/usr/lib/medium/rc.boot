#!/bin/sh
# Brings the system up: devices, network. Starts nothing that lies on a disk.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

mkdir -p /dev/pts /dev/shm /run/lock /run/udev
mount -t devpts -o nosuid,noexec,gid=5,mode=0620,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
[ ! -d /sys/firmware/efi/efivars ] || mount -t efivarfs -o nosuid,nodev,noexec efivarfs /sys/firmware/efi/efivars
# Kernel messages stay in the log (dmesg): a disk that fails would bury every prompt and every question under them.
echo "3 4 1 3" >/proc/sys/kernel/printk
hostname -F /etc/hostname
ip link set lo up

# Nodes of drivers that are loaded once somebody opens them: without /dev/fuse there is no sshfs.
while read -r module node number; do
  [ "$module" != "#" ] || continue
  mkdir -p "/dev/$(dirname "$node")"
  type=${number%%[0-9]*}
  number=${number#"$type"}
  [ -e "/dev/$node" ] || mknod -m 0600 "/dev/$node" "$type" "${number%:*}" "${number#*:}"
done <"/usr/lib/modules/$(uname -r)/modules.devname"

/usr/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1
# Not the hundreds of terminals, processors and clocks, about which there is nothing to be done.
few="--subsystem-nomatch=bdi --subsystem-nomatch=clockevents --subsystem-nomatch=clocksource --subsystem-nomatch=cpu"
few="$few --subsystem-nomatch=event_source --subsystem-nomatch=machinecheck --subsystem-nomatch=mem --subsystem-nomatch=memory"
few="$few --subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=workqueue"
# shellcheck disable=SC2086  # one word an option
udevadm trigger --type=devices --action=add $few
# A disk that hangs is no reason to wait long: it turns up when it does.
udevadm settle --timeout=10

echo "asl: the devices are there" >/dev/kmsg

keymap=$(cat /run/archiso/config/setkmap 2>/dev/null)
[ -z "$keymap" ] || setkmap "$keymap" >/dev/null 2>&1

# The network is nice to have, so nobody waits for it; a cable may also be plugged in later.
for path in /sys/class/net/*; do
  interface=${path##*/}
  # 1 is Ethernet.
  [ "$(cat "$path/type")" = 1 ] || continue
  udhcpc -b -t 5 -T 3 -A 20 -i "$interface" -x "hostname:$(hostname)" >/dev/null 2>&1 &
done

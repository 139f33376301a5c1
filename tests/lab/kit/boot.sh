# Boots a Debian root as a machine of its own. Run by machine.rs as `sh boot.sh enter` in the machine's network namespace;
# the rest comes through the environment:
#   LAB_ROOT    the cached root, only read
#   LAB_DIR     a directory of this machine: seed/ is copied over the root, mnt/ is the place to mount on, init takes the
#               process id of the machine's systemd as seen from outside
#   LAB_CGROUP  a fresh cgroup2 group
# Every mount lives in the machine's mount namespace and goes with it.
set -eu

if [ "$1" = enter ]; then
    echo $$ >"$LAB_CGROUP/cgroup.procs"
    exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child=KILL sh "$0" inside
fi

# /proc is still the host's here, so this is the number by which the host knows us.
read -r pid _ </proc/self/stat
echo "$pid" >"$LAB_DIR/init.new"
mv "$LAB_DIR/init.new" "$LAB_DIR/init"

disk=$LAB_DIR/mnt
mount -t tmpfs -o mode=755 lab "$disk"
mkdir "$disk/upper" "$disk/work" "$disk/root"
mount -t overlay -o "lowerdir=$LAB_ROOT,upperdir=$disk/upper,workdir=$disk/work" lab "$disk/root"
cp -a "$LAB_DIR/seed/." "$disk/root/"
cd "$disk/root"

mount -t proc -o nosuid,nodev,noexec proc proc
# Only this machine's own network settings may be written; the rest of the kernel is not ours.
# One by one: a unit's sandbox keeps a read-only /proc/sys, but not a writable net within it.
for part in proc/sys/*; do
    case $part in
    */net) ;;
    *) mount --bind -o ro "$part" "$part" ;;
    esac
done
if [ -e proc/sysrq-trigger ]; then
    mount --bind -o ro proc/sysrq-trigger proc/sysrq-trigger
fi
# Read-only /sys is how systemd and NetworkManager learn that there is no udev.
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
for node in null zero full random urandom tty net/tun; do
    if [ -e "/dev/$node" ]; then
        touch "dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    fi
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog -- /usr/lib/systemd/systemd

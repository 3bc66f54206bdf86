#!/bin/sh
# Runs a program of another processor under qemu-user, so that it can start others: `execve` of such a program asks the
# kernel for its interpreter. Where a mount namespace may have interpreters of its own (Linux 6.7), those of the machine stay
# as they are.
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
# Workers die on purpose; each would leave a core file of the emulator behind.
ulimit -c 0
if [ "$1" = --inside ]; then
    shift
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64:OCF" > /proc/sys/fs/binfmt_misc/register || exit
    exec "$@"
fi
# No new process namespace: programs are found in `/proc` by their process ids.
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] && unshare -Urm "$0" --inside true 2> /dev/null; then
    exec unshare -Urm "$0" --inside "$@"
fi
exec qemu-aarch64 "$@"

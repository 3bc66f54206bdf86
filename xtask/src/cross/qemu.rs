//! A way for programs of another processor to run, and to start others, under qemu-user.

use std::path::{Path, PathBuf};

use super::script;
use crate::cmd::Cmd;
use crate::outcome::Error;

/// `execve` of such a program asks the kernel for its interpreter. Where a mount namespace may have interpreters of its
/// own (Linux 6.7), the machine's are left as they are.
const RUNNER: &str = r#"#!/bin/sh
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
# Workers die on purpose; each would leave an image of the emulator behind.
ulimit -c 0
if [ "$1" = --inside ]; then
    shift
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64:OCF" > /proc/sys/fs/binfmt_misc/register || exit
    exec "$@"
fi
# Programs are found in `/proc` by their numbers: those of processes stay as they are.
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] && unshare -Urm "$0" --inside true 2> /dev/null; then
    exec unshare -Urm "$0" --inside "$@"
fi
exec qemu-aarch64 "$@"
"#;

fn path(dir: &Path) -> PathBuf {
    dir.join("under-qemu")
}

/// What runs a program: before its path and arguments.
pub(super) fn runner(dir: &Path) -> PathBuf {
    path(dir)
}

pub(super) fn prepare(dir: &Path) -> Result<(), Error> {
    script(&path(dir), RUNNER)
}

/// Whether programs can start others: without, pools have no workers.
pub(super) fn can_spawn() -> bool {
    Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
        || Cmd::new("unshare")
            .args([
                "-Urm",
                "mount",
                "-t",
                "binfmt_misc",
                "none",
                "/proc/sys/fs/binfmt_misc",
            ])
            .succeeds()
}

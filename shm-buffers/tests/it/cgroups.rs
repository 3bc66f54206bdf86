//! Runs tests in a cgroup with a memory limit.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::children;

/// A memory cgroup with a limit. Dropping this removes it.
struct LimitedGroup {
    dir: PathBuf,
    /// The cgroup that processes enter: `dir`, or a child of it without a limit of its own.
    leaf: PathBuf,
}

impl LimitedGroup {
    /// Creates a cgroup named after `purpose` with a limit of `bytes`. The error is the reason why none can be created.
    fn new(purpose: &str, bytes: usize, nested: bool) -> Result<Self, String> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (tree, file) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let dir = tree.join(format!("shm-buffers-test-{purpose}-{}", std::process::id()));
        let cannot = |what: &str, e| format!("cannot {what} below {}: {e}", tree.display());
        fs::create_dir(&dir).map_err(|e| cannot("create a cgroup", e))?;
        let mut group = Self {
            leaf: dir.clone(),
            dir,
        };
        fs::write(group.dir.join(file), bytes.to_string()).map_err(|e| cannot("set a memory limit", e))?;
        if nested {
            // Version 2 only enables controllers in children on request; the leaf needs none.
            group.leaf = group.dir.join("leaf");
            fs::create_dir(&group.leaf).map_err(|e| cannot("create a nested cgroup", e))?;
        }
        Ok(group)
    }
}

impl Drop for LimitedGroup {
    fn drop(&mut self) {
        // The kernel releases processes a moment after they have ended.
        for _ in 0..200 {
            drop(fs::remove_dir(&self.leaf));
            if !self.dir.exists() || fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Runs `test` again, with the parameter `part`, in a cgroup with a limit of `bytes`, or in a child of one.
pub(crate) fn run_under_limit(test: &str, part: &str, bytes: usize, nested: bool) {
    let group = match LimitedGroup::new(part, bytes, nested) {
        Ok(group) => group,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    // The child enters the cgroup before it executes the test binary.
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.leaf.display());
    children::assert_success(&mut children::again(&["sh", "-c", &enter, "sh"], test, part));
}

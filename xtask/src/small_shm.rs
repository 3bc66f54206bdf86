//! The test suite where `/dev/shm` has 64 MB, as in a container with default settings.
//!
//! A private mount namespace gets a small tmpfs of its own, so nothing outside sees it. That takes Linux and the right
//! to make namespaces; elsewhere the step is skipped and says so.

use std::path::Path;

use crate::cmd::{Cmd, Tally};
use crate::outcome::{Done, Error};

/// What Docker gives a container by default.
const SIZE: &str = "64m";

/// As root, or as a user who may become root in a namespace of his own.
const NAMESPACES: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-rm"]];

pub(crate) fn run(tally: &mut Tally) -> Result<Done, Error> {
    if !Path::new("/dev/shm").is_dir() {
        return Ok(Done::Skipped("this system has no /dev/shm".to_owned()));
    }
    let mount = format!("mount -t tmpfs -o size={SIZE} tmpfs /dev/shm && exec \"$@\"");
    for namespace in NAMESPACES {
        let launcher = [namespace, &["sh", "-c", &mount, "sh"]].concat();
        if Cmd::new("true").under(&launcher).succeeds() {
            // Documentation tests show usage; they hold nothing that a small tmpfs could change.
            Cmd::cargo()
                .args(["test", "--workspace", "--lib", "--bins", "--tests", "--examples"])
                .under(&launcher)
                .run_tests(tally)?;
            return Ok(Done::Passed);
        }
    }
    Ok(Done::Skipped(
        "mounting a tmpfs in a namespace (unshare -m, unshare -rm) is not allowed here".to_owned(),
    ))
}

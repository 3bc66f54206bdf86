//! [`init`]: where a process finds out that it is a worker, and runs `startup` instead of the program's `main`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::introduction::ParentConnection;
use crate::wire::entry::{self, Entry, Refusal};
use crate::worker::routine::Routine;
use crate::worker::startup;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Turns a process that a pool has started into a worker. Call it in the first line of `main` of every program that builds
/// pools, unless the workers are [separate programs](crate::Registry).
///
/// In the program itself it returns immediately. In a worker process, which is the same program started again, it runs the
/// leader's tasks until the leader ends the worker, and never returns.
///
/// A process is a worker if its standard input is the socket (on Windows: the pipe) that its own parent, with the same user,
/// made for it, and if that holds the parent's greeting. No environment variable and no name is involved. A program with
/// elevated privileges (set-user-ID, set-group-ID, file capabilities) is never a worker.
///
/// It must come first, because a worker process runs `main` up to this call: code before it runs in every worker. A worker
/// closes the descriptors that it inherited, except its standard streams.
///
/// In tests, where `main` belongs to the test harness, use [`init_in_tests!`](crate::init_in_tests).
pub fn init() {
    enter(|entry| match entry {
        Entry::Own(own) => Routine::resolve(own),
        Entry::Named(_) => Err(Refusal::NoMatchingOp(
            "has no ops by name: its program called `init` before `Registry::serve`".to_owned(),
        )),
    });
}

/// Returns only if this process is not a worker. A worker finds the functions that it runs with `resolve`.
pub(crate) fn enter(resolve: impl FnOnce(&Entry) -> Result<Routine, Refusal>) {
    INITIALIZED.store(true, Ordering::Relaxed);
    // Remembers early which file this process runs, because the file may be replaced. Errors are reported when a pool is
    // built.
    let _ = entry::identify();
    let _ = crate::os::arguments();
    if let Some(parent) = ParentConnection::detect() {
        startup::main(parent, resolve);
    }
}

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Enables the tests of a test binary to use pools: expands to an item that calls [`init`] before the harness's `main`. Use
/// it once in each test binary that builds pools.
///
/// ```
/// proc_pool::init_in_tests!();
/// ```
#[macro_export]
macro_rules! init_in_tests {
    () => {
        const _: () = {
            extern "C" fn init_before_main() {
                $crate::init();
            }
            #[used]
            #[cfg_attr(
                any(target_os = "linux", target_os = "android", target_os = "freebsd"),
                unsafe(link_section = ".init_array")
            )]
            #[cfg_attr(
                target_vendor = "apple",
                unsafe(link_section = "__DATA,__mod_init_func")
            )]
            #[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
            static INIT_BEFORE_MAIN: extern "C" fn() = init_before_main;
        };
    };
}

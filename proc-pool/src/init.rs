//! [`init`]: where a worker process leaves the program's own course.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::introduction::Invited;
use crate::registry::Registry;
use crate::worker;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Makes a process that a pool has started a worker. Call it as the first line of `main` in every program that builds
/// pools, except where the workers are [programs of their own](crate::Registry).
///
/// In the program itself it returns immediately. In a worker process, which is the same program started again, it serves
/// its leader until that ends, and never returns.
///
/// A process is a worker if its standard input is the socket (on Windows: the pipe) that its own parent, of the same user,
/// made for it, and holds the parent's greeting. No environment variable and no name is involved. A program with elevated
/// privileges (set-user-ID, set-group-ID, file capabilities) is never a worker.
///
/// It comes first because a worker is a process that runs `main` up to here: what comes before runs in every worker. A
/// worker closes the descriptors that it inherited beside its standard streams.
///
/// In tests, where `main` belongs to the test harness, use [`init_in_tests!`](crate::init_in_tests).
pub fn init() {
    enter(None);
}

/// Never returns in a worker process; `registry` has the ops by name.
pub(crate) fn enter(registry: Option<&Registry>) {
    INITIALIZED.store(true, Ordering::Relaxed);
    // What this process was started from is remembered early: it may be replaced. Errors are reported when a pool is built.
    let _ = crate::entry::identify();
    let _ = crate::os::arguments();
    if let Some(invited) = Invited::recognise() {
        worker::main(invited, registry);
    }
}

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Makes the tests of a test binary able to use pools: expands to an item that calls [`init`] before the
/// harness's `main`. Once in each test binary that builds pools.
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

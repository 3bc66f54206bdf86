//! [`init`]: where a worker process leaves the program's own course.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::registry::Registry;
use crate::worker;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// The environment variable that makes a process a worker.
pub(crate) const VARIABLE: &str = "PROC_POOL_WORKER";

/// To be called as the first line of `main` by every program that uses pools; but for those whose workers are
/// [programs of their own](crate::Registry).
///
/// In the program itself it returns at once. In a worker process, which is the same program started again, it
/// connects to the leader, works until it is told to end, and never returns.
///
/// It has to be first: a worker is a process that runs `main` up to here. What comes before runs in every worker;
/// threads started before could read the environment while it changes.
///
/// In tests, where `main` belongs to the test harness, use [`init_in_tests!`](crate::init_in_tests).
pub fn init() {
    enter(None);
}

/// Never returns in a worker process; `registry` are the ops that it has by name.
pub(crate) fn enter(registry: Option<&Registry>) {
    INITIALIZED.store(true, Ordering::Relaxed);
    // The executable may be replaced later: remember what it is now. Errors are told when a pool is built.
    let _ = crate::os::Image::own();
    if let Some(ticket) = take_ticket() {
        worker::main(&ticket, registry);
    }
}

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// What a leader writes into a worker's environment. Its form is the same in all versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The leader's [`VERSION`](crate::protocol::VERSION).
    pub(crate) version: String,
    pub(crate) leader: u32,
    pub(crate) token: u128,
    /// The name of the leader's one-shot server.
    pub(crate) server: String,
}

impl Ticket {
    pub(crate) fn to_value(&self) -> String {
        let Self {
            version,
            leader,
            token,
            server,
        } = self;
        format!("{version},{leader},{token:032x},{server}")
    }

    fn of_value(value: &str) -> Option<Self> {
        let mut parts = value.splitn(4, ',');
        let version = parts.next()?.to_owned();
        let leader = parts.next()?.parse().ok()?;
        let token = u128::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self {
            version,
            leader,
            token,
            server: parts.next()?.to_owned(),
        })
    }
}

/// The ticket, once: programs that the worker starts must not find it.
#[allow(unsafe_code)]
#[expect(clippy::disallowed_methods, reason = "the one place; see the SAFETY comment")]
fn take_ticket() -> Option<Ticket> {
    let value = std::env::var(VARIABLE).ok()?;
    // SAFETY: no other thread reads the environment: `init` is the first line of `main` (or runs before it), as
    // its documentation demands, and this is a worker process, which was started for nothing else.
    unsafe { std::env::remove_var(VARIABLE) };
    Ticket::of_value(&value)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_survive_commas_in_paths() {
        let ticket = Ticket {
            version: "1.2.3".into(),
            leader: 7,
            token: u128::MAX,
            server: "/tmp/a,b/socket".into(),
        };
        assert_eq!(Ticket::of_value(&ticket.to_value()), Some(ticket));
        for bad in ["", "1,7,zz,x", "1,-,0,x", "1,7,0"] {
            assert_eq!(Ticket::of_value(bad), None, "{bad}");
        }
    }
}

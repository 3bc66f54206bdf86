//! An invoker, its logs and its bars in a forked child of the leader.
#![allow(unsafe_code, reason = "forks, as other code in a leader may")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use invoker::{Executor, Fault, Invoker, PoolError, Render, Reporter};

fn square(_: &(), n: u64) -> u64 {
    n * n
}

/// Runs `child` in a forked child and returns the wait status: 0 if `child` returned `true`.
fn in_forked_child(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child has a copy of only this thread, and ends with `_exit`. The test checks that it takes no lock which
    // another thread may hold, except the allocator's.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no preconditions. It kills a child that hangs.
        unsafe { libc::alarm(30) };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        let code = i32::from(!done.unwrap_or(false));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(reaped, pid, "{}", std::io::Error::last_os_error());
    status
}

/// Counts the bytes that are drawn. The memory is private: a forked child counts its own.
#[derive(Clone, Default)]
struct Drawn(Arc<Mutex<usize>>);

impl Write for Drawn {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0.lock().expect("not poisoned") += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_forked_child_is_refused_and_drops_everything_silently() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let drawn = Drawn::default();
        let reporter = Reporter::builder()
            .render(Render::Lines)
            .output(drawn.clone())
            .start();
        let reporter = Arc::new(reporter.expect("it starts"));
        let builder = Invoker::builder(square).model(()).executor(executor);
        let built = builder
            .workers(2)
            .progress_by(reporter.clone(), "squares")
            .build();
        let mut invoker = Some(built.expect("the invoker builds"));
        let mut reporter = Some(reporter);
        let leader = std::process::id();
        for finish in [false, true] {
            let status = in_forked_child(|| {
                let drawn_before = *drawn.0.lock().expect("not poisoned");
                let invoker = invoker.take().expect("still there");
                let error = invoker.map(0..10).next().and_then(Result::err);
                let fault = error.map(|error| error.fault);
                let refused = matches!(fault, Some(Fault::Pool(PoolError::Forked { pid })) if pid == leader);
                match finish {
                    true => drop(invoker.finish()),
                    false => drop(invoker),
                }
                drop(reporter.take());
                refused && *drawn.0.lock().expect("not poisoned") == drawn_before
            });
            assert_eq!(status, 0, "{executor:?}");
            let outputs = invoker.as_ref().expect("still there").map(0..1000);
            let outputs = outputs.map(|output| output.expect("no task fails"));
            assert!(outputs.eq((0..1000).map(|n| n * n)), "{executor:?}");
        }
        let report = invoker.take().expect("still there").finish().expect("no error");
        assert_eq!(report.tasks.done, 2000, "{executor:?}");
    }
}

//! Signals to leaders: from other processes and from their terminal, and beside signal handlers of the program.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proc_pool::{Interrupt, OnInterrupt, Pool};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::interrupts::{interrupt_hung_tasks, wait_for_interrupt};
use crate::support::{
    IsolatedTest, RENDEZVOUS, Rendezvous, TempDir, builder, hang, is_isolated, open_files, processes_of,
    release, rendezvous_of_the_test, report, reset_sigint, signal, test_name, wait_for_release, watchdog,
};

/// The path of the terminal at which the leader runs.
const TERMINAL: &str = "IT_TERMINAL";

/// A leader in a process of its own, which asks for each signal that the test sends to it.
struct Leader {
    child: Child,
    rendezvous: Rendezvous,
    tmp: TempDir,
}

impl Leader {
    fn start(test: &str, terminal: &str) -> Self {
        let rendezvous = Rendezvous::new();
        let leader = IsolatedTest::new(test)
            .env(RENDEZVOUS, &rendezvous.address)
            .env(TERMINAL, terminal);
        let (child, tmp) = leader.start();
        Self {
            child,
            rendezvous,
            tmp,
        }
    }

    /// Sends a signal once the leader [asks](ask_for_a_signal) for it.
    fn send_when_asked(&self, what: Signal) {
        self.rendezvous.receive();
        signal(self.child.id(), what);
    }

    /// Waits for the leader's end.
    fn wait(self) -> ExitStatus {
        let output = self
            .child
            .wait_with_output()
            .expect("the child can be waited for");
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stdout));
        }
        output.status
    }

    fn must_succeed(self) {
        let status = self.wait();
        assert!(status.success(), "{status}");
    }
}

/// Asks the test for the next signal, in the leader.
fn ask_for_a_signal() {
    report(&rendezvous_of_the_test(), std::process::id());
}

/// Builds a pool of two workers, with SIGINT at its default action.
fn pool_on<T, R>(reaction: OnInterrupt, op: fn(T) -> R) -> Pool<T, R>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    reset_sigint();
    let pool = builder(2).on_interrupt(reaction).build_op(op);
    pool.expect("the pool starts")
}

/// Builds a pool that finishes at the first interrupt, and leaves the handlers of the program as they are.
fn finishing_pool() -> Pool<u64, u64> {
    let pool = builder(2).on_interrupt(OnInterrupt::Finish).build_op(|n: u64| n);
    pool.expect("the pool starts")
}

/// Runs a map over an infinite input, asks for a signal in its middle, and returns the number of outputs.
fn interrupt_endless_map(pool: &Pool<u64, u64>) -> u64 {
    let map = pool.map(0..).enumerate();
    map.map(|(n, output)| {
        assert_eq!(output.expect("the task succeeds"), n as u64);
        if n == 1000 {
            ask_for_a_signal();
        }
    })
    .count() as u64
}

#[test]
fn first_sigint_finishes() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool_on(OnInterrupt::Finish, |n: u64| n);
        let outputs = interrupt_endless_map(&pool);
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Finish));
        let stats = pool.bytes().stats();
        assert_eq!((stats.answered, stats.deaths), (outputs, 0));
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_asked(Signal::INT);
    leader.must_succeed();
}

#[test]
fn second_sigint_kills() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool_on(OnInterrupt::Cancel, |_: u64| -> () { hang() });
        return interrupt_hung_tasks(&pool, Interrupt::Cancel, 2, ask_for_a_signal);
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_asked(Signal::INT);
    leader.send_when_asked(Signal::INT);
    leader.must_succeed();
}

#[test]
fn third_sigint_ends_the_program() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool_on(OnInterrupt::Finish, |_: u64| -> () { hang() });
        interrupt_hung_tasks(&pool, Interrupt::Finish, 2, ask_for_a_signal);
        ask_for_a_signal();
        hang()
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..3 {
        leader.send_when_asked(Signal::INT);
    }
    assert_eq!(leader.wait().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn sigterm_cancels_and_kills_after_a_grace_period() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool_on(OnInterrupt::Finish, |_: u64| -> () { hang() });
        return interrupt_hung_tasks(&pool, Interrupt::Cancel, 1, ask_for_a_signal);
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_asked(Signal::TERM);
    leader.must_succeed();
}

/// Waits for the end of the thread that handles signals: it ends some time after the last pool.
fn wait_for_the_end_of_the_signal_thread() {
    let runs = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("/proc is readable");
        let names = threads
            .flatten()
            .map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        // The kernel cuts the names off.
        names.flatten().any(|name| name.starts_with("proc-pool signa"))
    };
    while runs() {
        thread::yield_now();
    }
}

#[test]
fn signals_have_their_default_action_after_the_last_pool() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let build = || {
            reset_sigint();
            let builder = builder(2).on_interrupt(OnInterrupt::Finish).on_dump(|_| ());
            drop(builder.build_op(|n: u64| n).expect("the pool starts"));
        };
        build();
        wait_for_the_end_of_the_signal_thread();
        let before = open_files();
        build();
        wait_for_the_end_of_the_signal_thread();
        assert_eq!(open_files(), before);
        ask_for_a_signal();
        hang()
    }
    for deadly in [Signal::INT, Signal::TERM, Signal::USR1] {
        let leader = Leader::start(&test_name!(), "");
        leader.send_when_asked(deadly);
        assert_eq!(leader.wait().signal(), Some(deadly.as_raw()));
    }
}

#[test]
fn sigusr1_asks_for_a_dump() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let (dumps, dumped) = std::sync::mpsc::channel();
        let pool = builder(2)
            .on_interrupt(OnInterrupt::Default)
            .on_dump(move |snapshot| dumps.send(snapshot.clone()).expect("the test receives dumps"))
            .build_op(|n: u64| n)
            .expect("the pool starts");
        assert_eq!(pool.map(0..100).count(), 100);
        for _ in 0..2 {
            ask_for_a_signal();
            let snapshot = dumped.recv().expect("a dump comes");
            assert_eq!((snapshot.workers.len(), snapshot.stats.answered), (2, 100));
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_asked(Signal::USR1);
    leader.send_when_asked(Signal::USR1);
    leader.must_succeed();
}

/// A terminal sends Ctrl-C to all processes of the job; the workers ignore it.
#[test]
fn ctrl_c_of_a_terminal_is_handled_by_the_leader_alone() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let terminal = std::env::var(TERMINAL).expect("the test sets the terminal");
        rustix::process::setsid().expect("this process leads no group");
        let terminal = File::options().read(true).write(true).open(terminal);
        let _terminal = terminal.expect("the terminal becomes the session's");
        let pool = pool_on(OnInterrupt::Finish, |n: u64| n);
        let outputs = interrupt_endless_map(&pool);
        let stats = pool.bytes().stats();
        assert_eq!((stats.answered, stats.deaths), (outputs, 0));
        return;
    }
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .expect("a terminal can be opened");
    grantpt(&terminal).expect("access can be granted");
    unlockpt(&terminal).expect("the terminal can be unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("the terminal has a name");
    let leader = Leader::start(&test_name!(), name.to_str().expect("the name is ASCII"));
    let mut terminal = File::from(terminal);
    leader.rendezvous.receive();
    terminal
        .write_all(b"\x03")
        .expect("the terminal can be written to");
    let mut echo = [0; 2];
    terminal.read_exact(&mut echo).expect("the terminal echoes");
    assert_eq!(&echo, b"^C");
    leader.must_succeed();
}

/// `systemctl stop` sends SIGTERM to leader and workers: running tasks have the grace period.
#[test]
fn sigterm_to_all_processes_leaves_running_tasks_their_grace_period() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool_on(OnInterrupt::Cancel, |path: String| wait_for_release(&path));
        let tasks = std::iter::repeat_n(rendezvous_of_the_test(), 2);
        let results: Vec<_> = pool.map(tasks).collect();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        wait_for_interrupt(&pool);
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Cancel));
        assert_eq!(pool.bytes().stats().deaths, 0);
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    let tasks = [leader.rendezvous.accept(), leader.rendezvous.accept()];
    let processes = processes_of(&leader.child, &leader.tmp);
    assert_eq!(processes.len(), 3, "a leader and its workers");
    processes.iter().for_each(|pid| signal(*pid, Signal::TERM));
    tasks.into_iter().for_each(release);
    leader.must_succeed();
}

/// Handles signals as programs do with `signal-hook`, and returns the number of signals received.
fn count_signals() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    for number in [Signal::INT, Signal::TERM, Signal::USR1] {
        let mut signals =
            signal_hook::iterator::Signals::new([number.as_raw()]).expect("the signal can be handled");
        let count = count.clone();
        thread::spawn(move || {
            signals
                .forever()
                .for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst))
        });
    }
    count
}

fn wait_for_count(count: &AtomicUsize, expected: usize) {
    while count.load(Ordering::SeqCst) < expected {
        thread::yield_now();
    }
    assert_eq!(count.load(Ordering::SeqCst), expected);
}

#[test]
fn handlers_installed_before_a_pool_keep_working() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        reset_sigint();
        let count = count_signals();
        for n in 0..3 {
            let pool = finishing_pool();
            ask_for_a_signal();
            wait_for_count(&count, 2 * n + 1);
            wait_for_interrupt(&pool);
            drop(pool);
            ask_for_a_signal();
            wait_for_count(&count, 2 * n + 2);
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..6 {
        leader.send_when_asked(Signal::INT);
    }
    leader.must_succeed();
}

/// The program's handler calls the pool's, also after the end of that pool; later pools receive each signal once.
#[test]
fn handlers_installed_after_a_pool_keep_working() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        reset_sigint();
        let first = finishing_pool();
        let count = count_signals();
        ask_for_a_signal();
        wait_for_count(&count, 1);
        wait_for_interrupt(&first);
        drop(first);
        ask_for_a_signal();
        wait_for_count(&count, 2);
        for n in 1..6 {
            let pool = finishing_pool();
            ask_for_a_signal();
            wait_for_count(&count, 2 * n + 1);
            wait_for_interrupt(&pool);
            assert_eq!(
                pool.bytes().interrupted(),
                Some(Interrupt::Finish),
                "the pool received one signal"
            );
            drop(pool);
            ask_for_a_signal();
            wait_for_count(&count, 2 * n + 2);
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..12 {
        leader.send_when_asked(Signal::INT);
    }
    leader.must_succeed();
}

/// `ctrlc` replaces the handler that it finds: the program receives the signals then, until another pool is built.
#[test]
fn ctrlc_replaces_the_pools_handler() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        reset_sigint();
        let first = finishing_pool();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        ctrlc::set_handler(move || _ = counter.fetch_add(1, Ordering::SeqCst))
            .expect("no other handler is set");
        for signal in 1..=2 {
            ask_for_a_signal();
            wait_for_count(&count, signal);
        }
        assert_eq!(first.bytes().interrupted(), None);
        drop(first);
        ask_for_a_signal();
        wait_for_count(&count, 3);
        let second = finishing_pool();
        ask_for_a_signal();
        wait_for_count(&count, 4);
        wait_for_interrupt(&second);
        drop(second);
        ask_for_a_signal();
        wait_for_count(&count, 5);
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..5 {
        leader.send_when_asked(Signal::INT);
    }
    leader.must_succeed();
}

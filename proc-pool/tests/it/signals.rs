//! Leaders that are sent signals, by others and by their terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proc_pool::{Builder, Fault, Interrupt, OnInterrupt, Pool, PoolError, WorkerState, Workers};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{
    Alone, Dir, Ear, hang, hear_from, is_alone, open_files, processes_of, signal, tell, test_name, watchdog,
};

const EAR: &str = "IT_EAR";
const TERMINAL: &str = "IT_TERMINAL";

/// A leader in a process of its own, which tells when it wants to be sent something.
struct Leader {
    child: Child,
    ear: Ear,
    tmp: Dir,
}

impl Leader {
    fn start(test: &str, terminal: &str) -> Self {
        let ear = Ear::new();
        let leader = Alone::new(test).env(EAR, &ear.path).env(TERMINAL, terminal);
        let (child, tmp) = leader.start();
        Self { child, ear, tmp }
    }

    fn send_when_told(&self, what: Signal) {
        self.ear.hear();
        signal(self.child.id(), what);
    }

    fn end(self) -> ExitStatus {
        let output = self.child.wait_with_output().expect("it is ours");
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stdout));
        }
        output.status
    }

    fn ends_well(self) {
        let status = self.end();
        assert!(status.success(), "{status}");
    }
}

fn ask() {
    let path = std::env::var(EAR).expect("it was told");
    tell(&path, std::process::id());
}

fn builder(reaction: OnInterrupt) -> Builder {
    crate::crash::reset_interrupts();
    builder_without_reset(reaction)
}

fn builder_without_reset(reaction: OnInterrupt) -> Builder {
    Builder::new().workers(Workers::Count(2)).on_interrupt(reaction)
}

/// An endless map of tasks that end; asks for a signal in its middle and gives how many outputs there were.
fn endless(pool: &Pool<u64, u64>) -> u64 {
    let map = pool.map(0..).enumerate();
    map.map(|(n, output)| {
        assert_eq!(output.expect("it is finished"), n as u64);
        if n == 1000 {
            ask();
        }
    })
    .count() as u64
}

/// Tasks that don't end; asks for a signal once they run, and again when the first one has had its effect.
fn hung(pool: &Pool<u64, ()>, first: Interrupt, signals: u32) {
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(0..5).collect::<Vec<_>>());
        let running = || {
            pool.snapshot()
                .workers
                .iter()
                .filter(|w| w.state == WorkerState::Busy)
                .count()
        };
        while running() < 2 {
            thread::yield_now();
        }
        for n in 0..signals {
            ask();
            while n == 0 && pool.bytes().interrupted().is_none() {
                thread::yield_now();
            }
            assert!(n > 0 || pool.bytes().interrupted() == Some(first));
        }
        for result in map.join().expect("it does not panic") {
            let error = result.expect_err("none ends");
            assert!(
                matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                "{error}"
            );
        }
    });
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Kill));
}

#[test]
fn the_first_interrupt_finishes() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Finish)
            .build_op(|n: u64| n)
            .expect("it starts");
        let outputs = endless(&pool);
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Finish));
        let stats = pool.bytes().stats();
        assert_eq!((stats.answered, stats.deaths), (outputs, 0));
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_told(Signal::INT);
    leader.ends_well();
}

#[test]
fn the_second_interrupt_kills() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Cancel)
            .build_op(|_: u64| -> () { hang() })
            .expect("it starts");
        return hung(&pool, Interrupt::Cancel, 2);
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_told(Signal::INT);
    leader.send_when_told(Signal::INT);
    leader.ends_well();
}

#[test]
fn the_third_interrupt_is_the_programs() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Finish)
            .build_op(|_: u64| -> () { hang() })
            .expect("it starts");
        hung(&pool, Interrupt::Finish, 2);
        ask();
        hang()
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..3 {
        leader.send_when_told(Signal::INT);
    }
    assert_eq!(leader.end().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn a_request_to_terminate_cancels_and_kills_after_its_grace() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Finish)
            .build_op(|_: u64| -> () { hang() })
            .expect("it starts");
        return hung(&pool, Interrupt::Cancel, 1);
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_told(Signal::TERM);
    leader.ends_well();
}

/// The thread ends by itself, some time after the last pool.
fn wait_until_nobody_listens() {
    let listens = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("it is readable");
        let names = threads
            .flatten()
            .map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        // Names are cut off.
        names.flatten().any(|name| name.starts_with("proc-pool signa"))
    };
    while listens() {
        thread::yield_now();
    }
}

#[test]
fn when_the_last_pool_is_gone_signals_do_what_they_did_before() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let build = || {
            let builder = builder(OnInterrupt::Finish).on_dump(|_| ());
            drop(builder.build_op(|n: u64| n).expect("it starts"));
        };
        build();
        wait_until_nobody_listens();
        let before = open_files();
        build();
        wait_until_nobody_listens();
        assert_eq!(open_files(), before);
        ask();
        hang()
    }
    for deadly in [Signal::INT, Signal::TERM, Signal::USR1] {
        let leader = Leader::start(&test_name!(), "");
        leader.send_when_told(deadly);
        assert_eq!(leader.end().signal(), Some(deadly.as_raw()));
    }
}

#[test]
fn a_dump_on_request() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let (dumps, dumped) = std::sync::mpsc::channel();
        let pool = builder(OnInterrupt::Ignore)
            .on_dump(move |snapshot| dumps.send(snapshot.clone()).expect("somebody listens"))
            .build_op(|n: u64| n)
            .expect("it starts");
        assert_eq!(pool.map(0..100).count(), 100);
        for _ in 0..2 {
            ask();
            let snapshot = dumped.recv().expect("it comes");
            assert_eq!((snapshot.workers.len(), snapshot.stats.answered), (2, 100));
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    leader.send_when_told(Signal::USR1);
    leader.send_when_told(Signal::USR1);
    leader.ends_well();
}

/// A terminal sends its Ctrl-C to all processes of the job, the workers too.
#[test]
fn a_terminals_ctrl_c_is_the_leaders() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let terminal = std::env::var(TERMINAL).expect("it was told");
        rustix::process::setsid().expect("it leads no group");
        let terminal = File::options().read(true).write(true).open(terminal);
        let _terminal = terminal.expect("it becomes the session's");
        let pool = builder(OnInterrupt::Finish)
            .build_op(|n: u64| n)
            .expect("it starts");
        let outputs = endless(&pool);
        let stats = pool.bytes().stats();
        assert_eq!((stats.answered, stats.deaths), (outputs, 0));
        return;
    }
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("there are");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("a name");
    let leader = Leader::start(&test_name!(), name.to_str().expect("it is ASCII"));
    let mut terminal = File::from(terminal);
    leader.ear.hear();
    terminal.write_all(b"\x03").expect("it listens");
    let mut echo = [0; 2];
    terminal.read_exact(&mut echo).expect("it echoes");
    assert_eq!(&echo, b"^C");
    leader.ends_well();
}

/// A task in progress when all processes of a job are asked to terminate, as by `systemctl stop`, has its time.
#[test]
fn a_request_to_all_processes_to_terminate_leaves_tasks_their_grace() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = builder(OnInterrupt::Cancel)
            .build_op(|path: String| hear_from(&path))
            .expect("it starts");
        let tasks = std::iter::repeat_n(std::env::var(EAR).expect("it was told"), 2);
        let results: Vec<_> = pool.map(tasks).collect();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        while pool.bytes().interrupted().is_none() {
            thread::yield_now();
        }
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Cancel));
        assert_eq!(pool.bytes().stats().deaths, 0);
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    let tasks = [leader.ear.accept(), leader.ear.accept()];
    let processes = processes_of(&leader.child, &leader.tmp);
    assert_eq!(processes.len(), 3, "a leader and its workers");
    processes.iter().for_each(|pid| signal(*pid, Signal::TERM));
    for mut task in tasks {
        task.write_all(&[1]).expect("it waits");
    }
    leader.ends_well();
}

/// Programs that listen to signals themselves, before a pool and after it.
fn listen() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    for number in [Signal::INT, Signal::TERM, Signal::USR1] {
        let mut signals = signal_hook::iterator::Signals::new([number.as_raw()]).expect("it can be handled");
        let count = count.clone();
        thread::spawn(move || {
            signals
                .forever()
                .for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst))
        });
    }
    count
}

fn wait_for(count: &AtomicUsize, expected: usize) {
    while count.load(Ordering::SeqCst) < expected {
        thread::yield_now();
    }
    assert_eq!(count.load(Ordering::SeqCst), expected);
}

#[test]
fn a_program_that_listened_before_a_pool_keeps_its_signals() {
    let _watchdog = watchdog(60);
    if is_alone() {
        crate::crash::reset_interrupts();
        let count = listen();
        for n in 0..3 {
            let pool = builder_without_reset(OnInterrupt::Finish)
                .build_op(|n: u64| n)
                .expect("it starts");
            ask();
            wait_for(&count, 2 * n + 1);
            while pool.bytes().interrupted().is_none() {
                thread::yield_now();
            }
            drop(pool);
            ask();
            wait_for(&count, 2 * n + 2);
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..6 {
        leader.send_when_told(Signal::INT);
    }
    leader.ends_well();
}

/// The program's handler calls the pool's, also when that pool is gone; later pools hear of each signal once.
#[test]
fn a_program_that_listens_after_a_pool_keeps_its_signals() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let build = || {
            let builder = builder_without_reset(OnInterrupt::Finish);
            builder.build_op(|n: u64| n).expect("it starts")
        };
        crate::crash::reset_interrupts();
        let first = build();
        let count = listen();
        ask();
        wait_for(&count, 1);
        while first.bytes().interrupted().is_none() {
            thread::yield_now();
        }
        drop(first);
        ask();
        wait_for(&count, 2);
        for n in 1..6 {
            let pool = build();
            ask();
            wait_for(&count, 2 * n + 1);
            while pool.bytes().interrupted().is_none() {
                thread::yield_now();
            }
            assert_eq!(
                pool.bytes().interrupted(),
                Some(Interrupt::Finish),
                "it heard of one signal"
            );
            drop(pool);
            ask();
            wait_for(&count, 2 * n + 2);
        }
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..12 {
        leader.send_when_told(Signal::INT);
    }
    leader.ends_well();
}

/// `ctrlc` replaces the handler that it finds: the signals are the program's then, until there is another pool.
#[test]
fn a_program_that_takes_over_ctrl_c_has_it() {
    let _watchdog = watchdog(60);
    if is_alone() {
        crate::crash::reset_interrupts();
        let build = || {
            let builder = builder_without_reset(OnInterrupt::Finish);
            builder.build_op(|n: u64| n).expect("it starts")
        };
        let first = build();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        ctrlc::set_handler(move || _ = counter.fetch_add(1, Ordering::SeqCst)).expect("it is the first one");
        for signal in 1..=2 {
            ask();
            wait_for(&count, signal);
        }
        assert_eq!(first.bytes().interrupted(), None);
        drop(first);
        ask();
        wait_for(&count, 3);
        let second = build();
        ask();
        wait_for(&count, 4);
        while second.bytes().interrupted().is_none() {
            thread::yield_now();
        }
        drop(second);
        ask();
        wait_for(&count, 5);
        return;
    }
    let leader = Leader::start(&test_name!(), "");
    for _ in 0..5 {
        leader.send_when_told(Signal::INT);
    }
    leader.ends_well();
}

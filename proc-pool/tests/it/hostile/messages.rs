//! Workers that send anything through their connection to the leader, before and after they are ready.

use std::time::Duration;

use proc_pool::{ExitCause, Fault, KillReason, PoolError};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{repeat_attacks, seconds};
use crate::support::{
    IsolatedTest, builder, connection, hang, has_children, is_isolated, open_files, pool, signal, test_name,
    watchdog,
};

/// The message that a worker sends to its leader before it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Wakeups, as fast as the system takes them.
    Wakeups,
    /// Random bytes, without an end.
    Noise,
    /// The first part of a message of `ipc-channel`.
    FirstHalf,
    /// The head of a message of `ipc-channel` that claims to have 2^46 bytes.
    HugeHead,
    /// Descriptors together with wakeups, as fast as the system takes them.
    Descriptors,
    /// The announcement that the worker ends; it does not.
    Farewell,
    /// The announcement that the worker is ready, once more.
    ReadyAgain,
    /// Nothing.
    Silence,
    /// Nothing, because the worker is stopped.
    Stop,
}

const MESSAGES: [Message; 9] = [
    Message::Wakeups,
    Message::Noise,
    Message::FirstHalf,
    Message::HugeHead,
    Message::Descriptors,
    Message::Farewell,
    Message::ReadyAgain,
    Message::Silence,
    Message::Stop,
];

impl Message {
    /// Sends this through a connection, and hangs.
    fn send(self, socket: i32) -> ! {
        let head = |bytes: usize, len: usize| [&bytes.to_ne_bytes()[..], &len.to_ne_bytes()].concat();
        match self {
            Self::Wakeups => loop {
                connection::send(socket, &[b'!'; 64]);
            },
            Self::Noise => connection::send_random_bytes(socket, 7),
            Self::FirstHalf => drop(connection::send(socket, &head(1000, 1000))),
            Self::HugeHead => drop(connection::send(socket, &head(64, 1 << 46))),
            Self::Descriptors => loop {
                connection::send_descriptors(socket, b"!");
            },
            Self::Farewell => drop(connection::send(socket, b"Fno reason")),
            Self::ReadyAgain => drop(connection::send(socket, b"RR")),
            Self::Silence => {}
            Self::Stop => signal(std::process::id(), Signal::STOP),
        }
        hang()
    }
}

/// The message that workers send instead of calling `init`.
const INSTEAD_OF_INIT: &str = "IT_MESSAGE_INSTEAD_OF_INIT";

/// Sends the message of [`INSTEAD_OF_INIT`] if there is one. Runs in workers, before `init`.
pub(crate) fn before_init() {
    let Ok(name) = std::env::var(INSTEAD_OF_INIT) else {
        return;
    };
    let message = MESSAGES
        .into_iter()
        .find(|message| format!("{message:?}") == name);
    message.expect("the message exists").send(connection::BEFORE_INIT);
}

/// A process that sends this instead of becoming a worker ends the start in time, and leaks nothing.
#[test]
fn messages_before_a_worker_is_ready_do_not_harm_the_leader() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120 + seconds(0));
    drop(pool(1, |n: u64| n));
    let files = open_files();
    repeat_attacks(&MESSAGES, 16 << 20, |_, message| {
        let pool = builder(2)
            .start_timeout(Duration::from_millis(150))
            .env(INSTEAD_OF_INIT, format!("{message:?}"))
            .build_op(|n: u64| n);
        match pool {
            Err(PoolError::Start { .. } | PoolError::NotAWorker { .. }) => {}
            // The process has sent that it is ready, and no task has been sent to it yet.
            Ok(pool) if [Message::ReadyAgain, Message::Noise].contains(&message) => drop(pool),
            other => panic!("{message:?}: {other:?}"),
        }
        assert!(!has_children(), "{message:?}");
        assert_eq!(open_files(), files, "{message:?}");
    });
}

/// One worker sends this and hangs, the other one works: only the task of the first worker fails.
#[test]
fn messages_of_a_worker_do_not_harm_the_leader() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120 + seconds(0));
    let builder = builder(2).deadline(Duration::from_millis(700));
    let pool = builder.build_op(|(n, message): (u64, Option<Message>)| match message {
        Some(message) => message.send(connection::to_leader()),
        None => n,
    });
    let pool = pool.expect("the pool starts");
    let tasks = |message| (0..200).map(move |n| (n, (n == 50).then_some(message)));
    assert_eq!(
        pool.map(tasks(Message::ReadyAgain))
            .filter(Result::is_err)
            .count(),
        1
    );
    pool.bytes().wait_ready().expect("workers are replaced");
    let files = open_files();
    repeat_attacks(&MESSAGES, 16 << 20, |_, message| {
        let (mut done, mut failed) = (0, 0);
        for result in pool.map(tasks(message)) {
            match result.map_err(|error| error.fault) {
                Ok(_) => done += 1,
                Err(Fault::TimedOut { .. } | Fault::WorkerDied { .. }) => failed += 1,
                Err(other) => panic!("{message:?}: {other}"),
            }
        }
        assert_eq!((done, failed), (199, 1), "{message:?}");
    });
    pool.bytes().wait_ready().expect("workers are replaced");
    assert!(open_files() <= files, "the leader has received descriptors");
}

#[test]
fn worker_that_sends_an_invalid_message_is_replaced() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |n: u32| {
        if n == 3 {
            connection::send(connection::to_leader(), &[0xff]);
            hang();
        }
        n
    });
    let results: Vec<_> = pool.map(0..10).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    let fault = results.into_iter().find_map(Result::err).map(|error| error.fault);
    let corrupt = ExitCause::Killed {
        reason: KillReason::Corrupt,
    };
    assert!(matches!(fault, Some(Fault::WorkerDied { cause, .. }) if cause == corrupt));
}

//! `cargo xtask hostile`: every peer that a process of the toolkit must not trust, for longer than the tests take.
//!
//! All of it are tests of the crates. They read from the environment how many seconds to go on.

use crate::cmd::{Cmd, Tally};
use crate::faults::run_some;
use crate::outcome::{Done, Error};

const USAGE: &str = "\
Usage: cargo xtask hostile [--minutes N]

Runs every hostile peer of the tests: workers that write anything into the memory that they share with their leader, workers
that send any bytes, floods, descriptors or nothing at all, before they are ready and after, forged payloads, forged
leaders, and images with false claims. Prints what came of it. With --minutes, those that can go on share that time.
It needs Linux.
";

/// A hostile peer.
struct Peer {
    package: &'static str,
    test: &'static str,
    /// Of the time that is asked for, in parts.
    parts: u64,
}

const PEERS: &[Peer] = &[
    Peer {
        package: "proc-pool",
        test: "hostile::a_worker_that_scribbles",
        parts: 4,
    },
    Peer {
        package: "proc-pool",
        test: "hostile::whatever_a_worker_says_its_leader_neither_waits_nor_grows",
        parts: 3,
    },
    Peer {
        package: "proc-pool",
        test: "hostile::whatever_a_worker_says_instead_of_getting_ready_its_pool_fails_in_time",
        parts: 2,
    },
    Peer {
        package: "proc-pool",
        test: "forgeries::",
        parts: 3,
    },
    Peer {
        package: "proc-pool",
        test: "introductions::",
        parts: 0,
    },
    Peer {
        package: "shm-buffers",
        test: "hostile::",
        parts: 1,
    },
];

/// How many seconds a peer is to go on.
const SECONDS: &str = "IT_HOSTILE";
/// How long continuous integration takes over each, beside what the tests do anyway.
const SAMPLE: u64 = 4;

pub(crate) fn main(args: lexopt::Parser) -> Result<(), Error> {
    match parse(args)? {
        Some(seconds) => run(seconds, &mut Tally::default()),
        None => {
            print!("{USAGE}");
            Ok(())
        }
    }
}

/// The seconds to go on; `None` where help is asked for.
fn parse(mut args: lexopt::Parser) -> Result<Option<u64>, Error> {
    use lexopt::prelude::*;
    let mut minutes = None::<u64>;
    while let Some(arg) = args.next()? {
        match arg {
            Long("minutes") => minutes = Some(args.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    match minutes {
        None => Ok(Some(SAMPLE * parts())),
        Some(minutes @ 1..=10_000) => Ok(Some(minutes * 60)),
        Some(_) => Err(Error::usage("--minutes takes a number from 1 to 10000")),
    }
}

fn parts() -> u64 {
    PEERS.iter().map(|peer| peer.parts).sum()
}

/// The short form, for `ci`.
pub(crate) fn sample(tally: &mut Tally) -> Result<Done, Error> {
    if !cfg!(target_os = "linux") {
        return Ok(Done::Skipped("hostile peers need Linux".to_owned()));
    }
    run(SAMPLE * parts(), tally)?;
    Ok(Done::Passed)
}

fn run(seconds: u64, tally: &mut Tally) -> Result<(), Error> {
    for peer in PEERS {
        let mut cargo = Cmd::cargo()
            .args(["test", "-p", peer.package, "--all-features", "--test", "it", "--"])
            .args([peer.test, "--nocapture"]);
        if peer.parts > 0 {
            cargo = cargo.env(SECONDS, (seconds * peer.parts / parts()).to_string());
        }
        run_some(cargo, peer.test, tally)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_asked_for_is_shared() {
        let parse = |args: &[&str]| parse(lexopt::Parser::from_args(args));
        assert_eq!(parse(&["--minutes", "10"]).expect("right usage"), Some(600));
        assert_eq!(parse(&[]).expect("right usage"), Some(SAMPLE * parts()));
        assert_eq!(parse(&["--help"]).expect("right usage"), None);
        for wrong in [&["--minutes", "0"][..], &["--minutes"], &["--frob"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! What the tests have in common, on systems other than Linux.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;

#[path = "alone.rs"]
mod alone;
#[path = "everywhere.rs"]
mod everywhere;
pub(crate) use crate::crash::{has_children, kill as try_kill};
pub(crate) use alone::{Alone, is_alone, test_name};
pub(crate) use everywhere::{Dir, NO_PRIVATE_BYTES, hang, pool, random, watchdog, wine_lacks};

/// Kills a process.
pub(crate) fn kill(pid: u32) {
    assert!(try_kill(pid), "it lives");
}

/// What a leader, who may be dead, has left running.
pub(crate) fn processes_of(leader: &Child, _: &Dir) -> Vec<u32> {
    crate::crash::children(leader.id())
}

/// Nobody can list it here.
pub(crate) fn shared_memory() -> Vec<PathBuf> {
    Vec::new()
}

/// See [`shared_memory`].
pub(crate) fn assert_left_nothing(_: &[PathBuf]) {}

/// Open files of this process: not compared here, where `ipc-channel` keeps some on Windows (see docs/PLATFORMS.md).
pub(crate) fn open_files() -> Option<usize> {
    None
}

/// Threads of this process: not told here.
pub(crate) fn threads() -> Option<usize> {
    None
}

/// Where tests hear of pids.
pub(crate) struct Ear {
    listener: TcpListener,
    /// Its address.
    pub(crate) path: String,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket can be made");
        let path = listener.local_addr().expect("it has one").to_string();
        Self { listener, path }
    }

    /// The next number that somebody tells.
    pub(crate) fn hear(&self) -> u32 {
        let mut bytes = [0; 4];
        self.accept().read_exact(&mut bytes).expect("it says something");
        u32::from_ne_bytes(bytes)
    }

    /// Somebody who [waits](hear_from) for an answer.
    pub(crate) fn accept(&self) -> TcpStream {
        self.listener.accept().expect("somebody connects").0
    }

    /// Lets one go on who [waits](hear_from) for an answer.
    pub(crate) fn answer(&self) {
        self.accept().write_all(&[1]).expect("it is there");
    }
}

/// Tells the ear at `path` a number.
pub(crate) fn tell(path: &str, number: u32) {
    let mut stream = TcpStream::connect(path).expect("somebody listens");
    stream.write_all(&number.to_ne_bytes()).expect("it is heard");
}

/// Waits for the [`answer`](Ear::answer) of the ear at `path`.
pub(crate) fn hear_from(path: &str) {
    let mut stream = TcpStream::connect(path).expect("somebody listens");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("it answers");
}

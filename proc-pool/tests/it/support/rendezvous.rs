//! Where a test meets its ops: they report numbers to it (mostly their pids), or wait until it releases them.

use std::io::{Read, Write};

#[cfg(not(target_os = "linux"))]
use std::net::{TcpListener as Listener, TcpStream as Stream};
#[cfg(target_os = "linux")]
use std::os::unix::net::{UnixListener as Listener, UnixStream as Stream};

/// A listening socket of the test.
pub(crate) struct Rendezvous {
    listener: Listener,
    /// Where ops connect to: a task carries it.
    pub(crate) address: String,
    #[cfg(target_os = "linux")]
    _dir: super::TempDir,
}

impl Rendezvous {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> Self {
        let dir = super::TempDir::new();
        let path = dir.path().join("rendezvous");
        Self {
            listener: Listener::bind(&path).expect("a socket can be bound"),
            address: path.to_str().expect("the path is UTF-8").to_owned(),
            _dir: dir,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> Self {
        let listener = Listener::bind("127.0.0.1:0").expect("a socket can be bound");
        let address = listener.local_addr().expect("the socket is bound").to_string();
        Self { listener, address }
    }

    /// Waits for an op that calls [`report`], and returns its number.
    pub(crate) fn receive(&self) -> u32 {
        let mut bytes = [0; 4];
        self.accept()
            .read_exact(&mut bytes)
            .expect("the op sends a number");
        u32::from_ne_bytes(bytes)
    }

    /// Waits for an op that calls [`wait_for_release`], and returns its connection: [`release`] lets the op continue,
    /// and dropping the connection makes the op panic.
    pub(crate) fn accept(&self) -> Stream {
        self.listener.accept().expect("an op connects").0
    }

    /// Waits for an op that calls [`wait_for_release`], and lets it continue.
    pub(crate) fn release_next(&self) {
        release(self.accept());
    }
}

/// Lets the op at the other end of the connection continue.
pub(crate) fn release(mut op: impl Write) {
    op.write_all(&[1]).expect("the op is waiting");
}

/// Sends a number to the rendezvous at `address`.
pub(crate) fn report(address: &str, number: u32) {
    let mut stream = Stream::connect(address).expect("the test listens");
    stream
        .write_all(&number.to_ne_bytes())
        .expect("the test reads the number");
}

/// Waits at `address` until the test releases this op.
pub(crate) fn wait_for_release(address: &str) {
    let mut stream = Stream::connect(address).expect("the test listens");
    stream.read_exact(&mut [0]).expect("the test releases this op");
}

/// The variable that carries the address of a test's rendezvous into the isolated part of the test.
#[cfg(target_os = "linux")]
pub(crate) const RENDEZVOUS: &str = "IT_RENDEZVOUS";

/// Returns the address of the rendezvous of the test that started this isolated part.
#[cfg(target_os = "linux")]
pub(crate) fn rendezvous_of_the_test() -> String {
    std::env::var(RENDEZVOUS).expect("the test sets the address")
}

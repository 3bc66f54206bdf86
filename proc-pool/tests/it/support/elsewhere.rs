//! What the tests have in common, on systems other than Linux.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

#[path = "everywhere.rs"]
mod everywhere;
pub(crate) use everywhere::{Dir, NO_PRIVATE_BYTES, hang, pool, watchdog, wine_lacks};

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

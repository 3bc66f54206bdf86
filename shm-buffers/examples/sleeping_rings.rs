//! Two processes exchange numbers through rings in shared memory. An end with nothing to do sleeps, and a byte in a pipe wakes
//! it. While both are awake, there are no system calls. A peer that dies closes its pipe: here that is an error.
//!
//! `cargo run -p shm-buffers --no-default-features --example sleeping_rings`

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use shm_buffers::ring::{Arm, Armed, Consumer, Producer, PushError, Wakeup};
use shm_buffers::{Backing, Layout, Region};

type Failure = Box<dyn std::error::Error>;

struct Connection<R, W>(Producer, Consumer, R, W);

impl<R: Read, W: Write> Connection<R, W> {
    fn send(&mut self, number: u64) -> Result<(), Failure> {
        let frame = number.to_le_bytes();
        while self.0.stage(&frame) == Err(PushError::Full) {
            let armed = self.0.arm(frame.len())?;
            self.sleep(armed)?;
        }
        let wakeup = self.0.publish();
        Ok(self.wake(wakeup)?)
    }

    fn receive(&mut self) -> Result<u64, Failure> {
        let mut frame = Vec::new();
        while self.1.pop(&mut frame)?.is_none() {
            let armed = self.1.arm(1);
            self.sleep(armed)?;
        }
        let wakeup = self.1.finish_read();
        self.wake(wakeup)?;
        Ok(u64::from_le_bytes(frame.as_slice().try_into()?))
    }

    fn sleep(&mut self, armed: Armed) -> io::Result<()> {
        self.wake(armed.peer)?;
        match armed.own {
            Arm::Ready => Ok(()),
            // A wakeup that is on its way is received as well.
            Arm::Sleep | Arm::WakeupPending => self.2.read_exact(&mut [0]),
        }
    }

    fn wake(&mut self, peer: Wakeup) -> io::Result<()> {
        match peer {
            Wakeup::NotNeeded => Ok(()),
            Wakeup::Needed => self.3.write_all(&[1]).and_then(|()| self.3.flush()),
        }
    }
}

fn main() -> Result<(), Failure> {
    let mut layout = Layout::new();
    let (numbers, squares) = (layout.ring(256), layout.ring(256)); // the same in both processes
    if let Ok(handle) = std::env::var("SLEEPING_RINGS") {
        let region = Region::attach(&handle.parse()?)?;
        let (tx, rx) = (Producer::new(&region, squares), Consumer::new(&region, numbers));
        let mut parent = Connection(tx, rx, io::stdin(), io::stdout());
        while let number @ 1.. = parent.receive()? {
            parent.send(number * number)?;
        }
        return Ok(());
    }
    let region = Region::create(&Backing::Auto, layout.byte_len())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env("SLEEPING_RINGS", region.handle()?.to_string());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (from, to) = process
        .stdout
        .take()
        .zip(process.stdin.take())
        .ok_or("not piped")?;
    let (tx, rx) = (Producer::new(&region, numbers), Consumer::new(&region, squares));
    let mut child = Connection(tx, rx, from, to);
    // A ring has room for 16 frames: with 20 on their way, the parent waits for room, too.
    for first in (1..10_000).step_by(20) {
        (first..first + 20).try_for_each(|number| child.send(number))?;
        (first..first + 20).try_for_each(|n| child.receive().map(|square| assert_eq!(square, n * n)))?;
    }
    child.send(0)?;
    assert!(process.wait()?.success());
    Ok(())
}

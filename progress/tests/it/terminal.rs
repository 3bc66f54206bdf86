//! A pseudo-terminal with an emulator, and this test binary as the child that draws on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, Winsize, tcsetwinsize};

use super::WATCHDOG;

/// The variable that names the scenario of a child.
pub(crate) const SCENARIO: &str = "PROGRESS_TEST_SCENARIO";

/// A child, the terminal on which it draws, and the screen.
pub(crate) struct Terminal {
    child: Child,
    stdin: ChildStdin,
    device: File,
    bytes: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// All bytes that were written to the terminal.
    pub(crate) raw: String,
}

impl Terminal {
    /// Starts a child on a terminal of 12 rows, with these environment variables.
    pub(crate) fn start(scenario: &str, columns: u16, vars: &[(&str, &str)]) -> Self {
        Self::start_sized(scenario, (columns, ROWS), vars)
    }

    /// Starts a child on a terminal that reports this size. If it reports no columns, it has 80.
    pub(crate) fn start_sized(scenario: &str, (columns, rows): (u16, u16), vars: &[(&str, &str)]) -> Self {
        let (device, slave) = open();
        resize(&device, (columns, rows));
        let columns = if columns == 0 { 80 } else { columns };
        let mut command = command(scenario);
        command
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(slave));
        let mut child = command.spawn().expect("started");
        // The command holds the other end of the terminal. After this, only the child does.
        drop(command);
        let stdin = child.stdin.take().expect("piped");
        let (send, bytes) = channel();
        let mut reader = device.try_clone().expect("a second handle");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // At the end, Linux returns an error instead of 0.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            device,
            bytes,
            screen: vt100::Parser::new(ROWS, columns, 0),
            raw: String::new(),
        }
    }

    /// Lets the child continue.
    pub(crate) fn go_on(&mut self) {
        self.stdin.write_all(b"\n").expect("the child waits");
    }

    /// Resizes the terminal, as a user does with the mouse.
    pub(crate) fn resize(&mut self, columns: u16) {
        self.screen.screen_mut().set_size(ROWS, columns);
        resize(&self.device, (columns, ROWS));
    }

    /// Writes to the terminal, as another program does.
    pub(crate) fn write_as_another(&mut self, text: &str) {
        File::from(self.slave())
            .write_all(text.as_bytes())
            .expect("written");
    }

    /// Holds or continues the terminal, as Ctrl-S and Ctrl-Q do.
    pub(crate) fn flow(&self, action: Action) {
        rustix::termios::tcflow(self.slave(), action).expect("a terminal");
    }

    fn slave(&self) -> OwnedFd {
        let name = ptsname(&self.device, Vec::new()).expect("a name");
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opened")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child runs");
    }

    /// Reads until the screen fulfils `condition`, and returns its rows.
    pub(crate) fn until(&mut self, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        loop {
            let rows = self.rows();
            if condition(&rows) {
                return rows;
            }
            let more = self.bytes.recv_timeout(WATCHDOG);
            let more = more.unwrap_or_else(|_| panic!("the screen stays\n{}", rows.join("\n")));
            self.draw(&more);
        }
    }

    /// Waits for the end of the child. Returns the last rows, and all bytes that were written.
    pub(crate) fn end(mut self) -> (Vec<String>, String) {
        while let Ok(more) = self.bytes.recv_timeout(WATCHDOG) {
            self.draw(&more);
        }
        assert!(self.child.wait().expect("ended").success());
        (self.rows(), self.raw)
    }

    fn draw(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.raw += &String::from_utf8_lossy(bytes);
    }

    fn rows(&self) -> Vec<String> {
        let screen = self.screen.screen();
        let rows = screen.rows(0, screen.size().1);
        let mut rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        let used = rows
            .iter()
            .rposition(|row| !row.is_empty())
            .map_or(0, |last| last + 1);
        rows.truncate(used);
        rows
    }
}

const ROWS: u16 = 12;

/// Returns a command that runs `scenario` in a child of this binary.
pub(crate) fn command(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "pseudo_terminal::child", "--nocapture"]);
    for variable in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"] {
        command.env_remove(variable);
    }
    command.envs([
        (SCENARIO, scenario),
        ("TERM", "xterm"),
        ("LC_ALL", "C.UTF-8"),
        ("RUST_BACKTRACE", "0"),
    ]);
    command
}

/// Returns the two ends of a new pseudo-terminal.
pub(crate) fn open() -> (File, OwnedFd) {
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty()).expect("opened");
    (File::from(master), slave)
}

pub(crate) fn resize(device: &File, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(device, size).expect("sized");
}

//! The stack of a worker that is stuck in a task: [`StackRequest`] asks for it, [`StackCapture`] turns it into text.
//!
//! The worker only records addresses, and the leader symbolizes them. Both run the same program and mostly the same libraries,
//! mapped at different addresses: the files that are mapped there relate the addresses of one to those of the other.

use std::fmt::Write;
use std::time::Duration;

use shm_buffers::slots::Slots;

use crate::os::stack::{self as os, DONE, FRAMES, FRAMES_AT, SEEN};

/// How long a worker may take to reply before it is killed without a stack. A reply takes a millisecond, if a core is free.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum length of the text of a stack, in bytes.
const MAX_TEXT: usize = 16 << 10;

/// A request to a process for its stack.
#[derive(Debug)]
pub(crate) struct StackRequest {
    slots: Slots,
    pid: u32,
}

/// The reply of a process, with what is needed to symbolize it.
#[derive(Debug)]
pub(crate) struct StackCapture {
    addresses: Vec<u64>,
    /// `/proc/PID/maps`.
    maps: String,
    /// `/proc/PID/wchan`: the kernel function in which the process waits.
    wchan: String,
}

impl StackRequest {
    /// Asks process `pid`, an unreaped child of this process, which writes its reply into `slots`.
    pub(crate) fn send(pid: u32, slots: Slots) -> Self {
        os::request_capture(pid);
        Self { slots, pid }
    }

    /// Returns whether the process has written its whole reply.
    pub(crate) fn is_complete(&self) -> bool {
        self.slots.slot(DONE).load_acquire() > 0
    }

    /// Returns what the process has written so far. The process must still be alive.
    pub(crate) fn capture(&self) -> StackCapture {
        let seen = self.slots.slot(SEEN).load_acquire().min(FRAMES as u64) as usize;
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        StackCapture {
            addresses: (0..seen).map(|n| self.slots.slot(FRAMES_AT + n).get()).collect(),
            maps: read("maps"),
            wchan: read("wchan"),
        }
    }
}

impl StackCapture {
    /// Returns the stack as text, innermost call first, or `None` if nothing is known. Slow: it reads debug information.
    pub(crate) fn text(&self) -> Option<String> {
        if self.addresses.is_empty() {
            let known = !matches!(&*self.wchan, "" | "0");
            return known.then(|| format!("no reply; the process waits in the kernel: {}", self.wchan));
        }
        let ours = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let frames = self
            .addresses
            .iter()
            .map(|&address| Frame::of(address, &self.maps, &ours));
        let mut frames: Vec<Frame> = frames.collect();
        // The request itself has added frames: the signal handler, and the kernel's way into it.
        if let Some(handler) = frames.iter().rposition(|frame| frame.is_in("on_ask")) {
            frames.drain(..(handler + 2).min(frames.len()));
        }
        // The frames around the op are the same for all tasks.
        if let Some(around) = frames.iter().rposition(|frame| frame.is_in("catch_panic")) {
            frames.truncate(around);
        }
        let mut text = String::new();
        for (n, frame) in frames.iter().enumerate() {
            for line in &frame.0 {
                if text.len() + line.len() > MAX_TEXT {
                    return Some(text);
                }
                let _ = writeln!(text, "{n:>4}: {line}");
            }
        }
        Some(text)
    }
}

/// The functions of one frame: more than one if some were inlined.
struct Frame(Vec<String>);

impl Frame {
    fn of(address: u64, theirs: &str, ours: &str) -> Self {
        let mut lines = Vec::new();
        if let Some(local) = relocate(address, theirs, ours) {
            backtrace::resolve(local as *mut std::ffi::c_void, |symbol| {
                if let Some(name) = symbol.name() {
                    let mut line = format!("{name:#}");
                    if let (Some(file), Some(number)) = (symbol.filename(), symbol.lineno()) {
                        let _ = write!(line, " at {}:{number}", file.display());
                    }
                    lines.push(line);
                }
            });
        }
        if lines.is_empty() {
            let mapping = mappings(theirs).find(|mapping| mapping.contains(address));
            lines.push(match mapping {
                Some(it) => format!("{}+{:#x}", it.path, address - it.start + it.offset),
                None => format!("{address:#x}"),
            });
        }
        Self(lines)
    }

    fn is_in(&self, function: &str) -> bool {
        self.0.iter().any(|line| line.contains(function))
    }
}

/// A line of `/proc/PID/maps`, see proc_pid_maps(5).
struct Mapping<'a> {
    start: u64,
    end: u64,
    offset: u64,
    /// Device and inode identify the file, whatever its path.
    file: (&'a str, &'a str),
    path: &'a str,
}

impl Mapping<'_> {
    fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

fn mappings(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let offset = fields.nth(1)?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            offset: number(offset)?,
            file: (fields.next()?, fields.next()?),
            path: fields.next().unwrap_or_default().trim_start(),
        })
    })
}

/// Returns the address in `ours` of the byte of a file that is mapped at `address` in `theirs`.
fn relocate(address: u64, theirs: &str, ours: &str) -> Option<u64> {
    let there = mappings(theirs).find(|mapping| mapping.contains(address))?;
    if there.file.1 == "0" {
        return None;
    }
    let offset = there.offset.checked_add(address - there.start)?;
    let same_file = mappings(ours).filter(|mapping| mapping.file == there.file);
    let mut covering = same_file
        .filter(|mapping| offset >= mapping.offset && offset - mapping.offset < mapping.end - mapping.start);
    covering.next().map(|here| here.start + (offset - here.offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "\
55d000000000-55d000010000 r--p 00000000 08:01 77                         /bin/program
55d000010000-55d000050000 r-xp 00010000 08:01 77                         /bin/program (deleted)
7f1000000000-7f1000100000 r-xp 00028000 08:01 99                         /lib/a library.so
7f1100000000-7f1100100000 rwxp 00000000 00:00 0
";
    const OURS: &str = "\
560000000000-560000010000 r--p 00000000 08:01 77                         /bin/program
560000010000-560000050000 r-xp 00010000 08:01 77                         /bin/program
7f2200000000-7f2200000800 r-xp 00028000 08:01 99                         /lib/a library.so
7f1100000000-7f1100100000 rwxp 00000000 00:00 0
";

    #[test]
    fn relocation_finds_the_same_byte_of_the_same_file() {
        assert_eq!(relocate(0x55d0_0001_2345, THEIRS, OURS), Some(0x5600_0001_2345));
        assert_eq!(relocate(0x7f10_0000_0123, THEIRS, OURS), Some(0x7f22_0000_0123));
        assert_eq!(relocate(0x7f10_0000_0900, THEIRS, OURS), None, "not mapped here");
        assert_eq!(relocate(0x7f11_0000_0000, THEIRS, OURS), None, "not of a file");
        assert_eq!(relocate(0x1234, THEIRS, OURS), None);
        assert_eq!(
            mappings(THEIRS).nth(2).map(|it| it.path),
            Some("/lib/a library.so")
        );
    }

    #[test]
    fn malformed_maps_relocate_nothing() {
        for malformed in [
            "",
            "1-2",
            "z-1 r 0 0 0",
            "2-1 r 0 a 5",
            "0-ffffffffffffffff r ffffffffffffffff a 5 x",
        ] {
            assert_eq!(relocate(7, malformed, OURS), None, "{malformed}");
            assert_eq!(relocate(0x55d0_0001_2345, THEIRS, malformed), None, "{malformed}");
        }
    }

    /// The stack is of this very process.
    #[test]
    fn text_of_a_stack_names_its_functions() {
        let here = text_of_a_stack_names_its_functions as *const () as u64 + 1;
        let capture = StackCapture {
            addresses: vec![here, 0x10],
            maps: std::fs::read_to_string("/proc/self/maps").expect("it is readable"),
            wchan: String::new(),
        };
        let text = capture.text().expect("it has frames");
        assert!(text.contains("text_of_a_stack_names_its_functions at "), "{text}");
        assert!(text.ends_with(": 0x10\n"), "{text}");
        let empty = |wchan: &str| StackCapture {
            addresses: Vec::new(),
            maps: String::new(),
            wchan: wchan.to_owned(),
        };
        assert_eq!(empty("0").text(), None);
        assert!(
            empty("futex_wait")
                .text()
                .is_some_and(|text| text.contains("futex_wait"))
        );
    }
}

//! The stack of a worker that is stuck in a task.
//!
//! The worker only notes addresses; the leader gives them names. Both run the same program and mostly the same
//! libraries, at different addresses: the way from one to the other leads over the files that are mapped there.

use std::fmt::Write;
use std::time::Duration;

use shm_buffers::slots::Slots;

use crate::os::stack as os;

/// Frames of a stack, at most.
pub(crate) const FRAMES: usize = 64;
/// The slot that tells how many there are up to now.
pub(crate) const SEEN: usize = 0;
/// The slot that tells that there will be no more.
pub(crate) const DONE: usize = 1;
/// The first frame's slot.
pub(crate) const FRAMES_AT: usize = 2;
/// Slots for all that.
pub(crate) const SLOTS: usize = FRAMES_AT + FRAMES;

/// How long a worker may take to answer, before it is killed without. It takes a millisecond, if
/// the machine has one for it.
pub(crate) const ANSWER: Duration = Duration::from_millis(500);

/// Bytes of a stack's text, at most.
const MAX_TEXT: usize = 16 << 10;

/// What was asked of a process.
#[derive(Debug)]
pub(crate) struct Question {
    slots: Slots,
    pid: u32,
}

/// What it answered, with what is needed to understand it.
#[derive(Debug)]
pub(crate) struct Answer {
    addresses: Vec<u64>,
    maps: String,
    /// Where it waited in the kernel.
    waiting: String,
}

impl Question {
    /// Asks process `pid`, a child that was not reaped, which answers into `slots`.
    pub(crate) fn ask(pid: u32, slots: Slots) -> Self {
        os::ask(pid);
        Self { slots, pid }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.slots.slot(DONE).observe() > 0
    }

    /// What is there now; while the process lives.
    pub(crate) fn answer(&self) -> Answer {
        let seen = self.slots.slot(SEEN).observe().min(FRAMES as u64) as usize;
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        Answer {
            addresses: (0..seen).map(|n| self.slots.slot(FRAMES_AT + n).get()).collect(),
            maps: read("maps"),
            waiting: read("wchan"),
        }
    }
}

impl Answer {
    /// The stack as text, innermost call first; `None` if nothing is known. Takes long: it reads debug information.
    pub(crate) fn text(&self) -> Option<String> {
        if self.addresses.is_empty() {
            let known = !matches!(&*self.waiting, "" | "0");
            return known.then(|| format!("no answer; it waits in the kernel: {}", self.waiting));
        }
        let ours = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let frames = self
            .addresses
            .iter()
            .map(|&address| Frame::of(address, &self.maps, &ours));
        let mut frames: Vec<Frame> = frames.collect();
        // What the asking itself has added: the handler, and the kernel's way into it.
        if let Some(handler) = frames.iter().rposition(|frame| frame.is_in("on_ask")) {
            frames.drain(..(handler + 2).min(frames.len()));
        }
        // What is around the task is the same for all.
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

/// One frame's functions: more than one where some were inlined.
struct Frame(Vec<String>);

impl Frame {
    fn of(address: u64, theirs: &str, ours: &str) -> Self {
        let mut lines = Vec::new();
        if let Some(here) = relocate(address, theirs, ours) {
            backtrace::resolve(here as *mut std::ffi::c_void, |symbol| {
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
            let place = mappings(theirs).find(|it| it.holds(address));
            lines.push(match place {
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

/// A line of `/proc/PID/maps` (proc_pid_maps(5)).
struct Mapping<'a> {
    start: u64,
    end: u64,
    offset: u64,
    /// Device and inode: the same file, by whatever name.
    file: (&'a str, &'a str),
    path: &'a str,
}

impl Mapping<'_> {
    fn holds(&self, address: u64) -> bool {
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

/// Where that byte of a file, mapped at `address` there, is mapped here.
fn relocate(address: u64, theirs: &str, ours: &str) -> Option<u64> {
    let there = mappings(theirs).find(|it| it.holds(address))?;
    if there.file.1 == "0" {
        return None;
    }
    let offset = there.offset.checked_add(address - there.start)?;
    let same = mappings(ours).filter(|it| it.file == there.file);
    let mut covering = same.filter(|it| offset >= it.offset && offset - it.offset < it.end - it.start);
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
    fn the_same_byte_of_the_same_file() {
        assert_eq!(relocate(0x55d0_0001_2345, THEIRS, OURS), Some(0x5600_0001_2345));
        assert_eq!(relocate(0x7f10_0000_0123, THEIRS, OURS), Some(0x7f22_0000_0123));
        assert_eq!(relocate(0x7f10_0000_0900, THEIRS, OURS), None, "not mapped here");
        assert_eq!(relocate(0x7f11_0000_0000, THEIRS, OURS), None, "no file's");
        assert_eq!(relocate(0x1234, THEIRS, OURS), None);
        assert_eq!(
            mappings(THEIRS).nth(2).map(|it| it.path),
            Some("/lib/a library.so")
        );
    }

    #[test]
    fn nonsense_is_no_address() {
        for nonsense in [
            "",
            "1-2",
            "z-1 r 0 0 0",
            "2-1 r 0 a 5",
            "0-ffffffffffffffff r ffffffffffffffff a 5 x",
        ] {
            assert_eq!(relocate(7, nonsense, OURS), None, "{nonsense}");
            assert_eq!(relocate(0x55d0_0001_2345, THEIRS, nonsense), None, "{nonsense}");
        }
    }

    /// Of this very process, without the detour over another one.
    #[test]
    fn a_text_with_names() {
        let here = a_text_with_names as *const () as u64 + 1;
        let answer = Answer {
            addresses: vec![here, 0x10],
            maps: std::fs::read_to_string("/proc/self/maps").expect("it is readable"),
            waiting: String::new(),
        };
        let text = answer.text().expect("it has frames");
        assert!(text.contains("a_text_with_names at "), "{text}");
        assert!(text.ends_with(": 0x10\n"), "{text}");
        let none = |waiting: &str| Answer {
            addresses: Vec::new(),
            maps: String::new(),
            waiting: waiting.to_owned(),
        };
        assert_eq!(none("0").text(), None);
        assert!(
            none("futex_wait")
                .text()
                .is_some_and(|text| text.contains("futex_wait"))
        );
    }
}

//! The panics that end a worker, as text in the memory that it shares with its leader: the worker's panic hook writes them just
//! before the process aborts, and the leader reads them after its end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use shm_buffers::Printable;
use shm_buffers::slots::Slots;

/// Panics that are written, at most.
pub(crate) const MOST: usize = 4;
/// Bytes of text, at most.
const BYTES: usize = 4 << 10;
/// Bytes of one panic's text, at most: all of them have room, with what separates them and the marks of those that are cut.
pub(crate) const MAX_TEXT: usize = BYTES / MOST - 8;
const WORD: usize = size_of::<u64>();
/// The slots that this takes: the text's length, then the text.
pub(crate) const SLOTS: usize = 1 + BYTES / WORD;

static PLACE: OnceLock<Slots> = OnceLock::new();
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Lets this process, a worker, write its last panics into `slots`.
pub(crate) fn write_into(slots: Slots) {
    PLACE.get_or_init(|| slots);
}

/// Writes the panics for which this process aborts. The first thread that does so is the one that ends the process.
pub(crate) fn write<'a>(panics: impl Iterator<Item = &'a str>) {
    let Some(slots) = PLACE.get() else { return };
    if !WRITTEN.swap(true, Ordering::Relaxed) {
        put(slots, panics);
    }
}

fn put<'a>(slots: &Slots, panics: impl Iterator<Item = &'a str>) {
    // Escaped text has no line ends: they separate the panics.
    let lines: Vec<String> = panics
        .take(MOST)
        .map(|panic| Printable(panic).to_string())
        .collect();
    let text = lines.join("\n");
    let bytes = &text.as_bytes()[..text.len().min(BYTES)];
    for (index, part) in bytes.chunks(WORD).enumerate() {
        let mut word = [0; WORD];
        word[..part.len()].copy_from_slice(part);
        slots.slot(1 + index).set(u64::from_le_bytes(word));
    }
    slots.slot(0).publish(bytes.len() as u64);
}

/// Reads the text of a worker that has ended. The text may be forged: the result is a bounded number of bounded, escaped lines.
pub(crate) fn read(slots: &Slots) -> Vec<String> {
    let len = slots.slot(0).observe().min(BYTES as u64) as usize;
    let words = 1..1 + len.div_ceil(WORD);
    let mut bytes: Vec<u8> = words
        .flat_map(|index| slots.slot(index).get().to_le_bytes())
        .collect();
    bytes.truncate(len);
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split('\n').filter(|line| !line.is_empty());
    lines.take(MOST).map(|line| Printable(line).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_that_were_written_are_read_as_they_were() {
        let slots = Slots::in_process(SLOTS);
        assert_eq!(read(&slots), Vec::<String>::new());
        let long = "é".repeat(MAX_TEXT / 2);
        let panics = [
            "panicked at a.rs:1:2: boom\n\u{1b}[2J",
            &long,
            &long,
            &long,
            "too many",
        ];
        put(&slots, panics.into_iter());
        let mut expected = panics.map(str::to_owned);
        expected[0] = r"panicked at a.rs:1:2: boom\n\u{1b}[2J".to_owned();
        assert_eq!(read(&slots), expected[..MOST]);
    }

    #[test]
    fn forged_text_is_bounded_and_escaped() {
        let slots = Slots::in_process(SLOTS);
        for len in [1, 7, BYTES as u64, BYTES as u64 + 1, u64::MAX] {
            for fill in [u64::MAX, 0, 0x0a1b_0a1b_0a1b_0a1b, 0x4141_4141_4141_4141] {
                (1..SLOTS).for_each(|index| slots.slot(index).set(fill));
                slots.slot(0).publish(len);
                let panics = read(&slots);
                assert!(panics.len() <= MOST);
                for panic in panics {
                    assert!(panic.len() <= BYTES * 6, "{}", panic.len());
                    assert!(!panic.contains(char::is_control), "{panic:?}");
                }
            }
        }
    }
}

//! The panics that end a worker, as text in the memory that it shares with its leader. The worker's panic hook (see `panics`)
//! writes them just before the process aborts, and the leader reads them after the end of the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use shm_buffers::Printable;
use shm_buffers::slots::Slots;

/// Maximum number of panics that are written.
pub(crate) const MAX_PANICS: usize = 4;
/// Size of the text area in bytes.
const BYTES: usize = 4 << 10;
/// Maximum length of one panic's text in bytes, so that all of them fit, with their separators and truncation marks.
pub(crate) const MAX_TEXT: usize = BYTES / MAX_PANICS - 8;
const WORD: usize = size_of::<u64>();
/// Number of slots needed: the text's length, then the text.
pub(crate) const SLOTS: usize = 1 + BYTES / WORD;

static OUTPUT: OnceLock<Slots> = OnceLock::new();
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Lets this process, a worker, write its last panics into `slots`.
pub(crate) fn write_into(slots: Slots) {
    OUTPUT.get_or_init(|| slots);
}

/// Writes the panics for which this process aborts. Only the first call writes: its thread is the one that ends the process.
pub(crate) fn write<'a>(panics: impl Iterator<Item = &'a str>) {
    let Some(slots) = OUTPUT.get() else { return };
    if !WRITTEN.swap(true, Ordering::Relaxed) {
        write_to(slots, panics);
    }
}

fn write_to<'a>(slots: &Slots, panics: impl Iterator<Item = &'a str>) {
    // Escaped text contains no line feeds, so they can separate the panics.
    let lines: Vec<String> = panics
        .take(MAX_PANICS)
        .map(|panic| Printable(panic).to_string())
        .collect();
    let text = lines.join("\n");
    let bytes = &text.as_bytes()[..text.len().min(BYTES)];
    for (index, part) in bytes.chunks(WORD).enumerate() {
        let mut word = [0; WORD];
        word[..part.len()].copy_from_slice(part);
        slots.slot(1 + index).set(u64::from_le_bytes(word));
    }
    slots.slot(0).store_release(bytes.len() as u64);
}

/// Reads the panics of a worker that has ended. The worker may have written anything: the result is a bounded number of bounded,
/// escaped lines.
pub(crate) fn read(slots: &Slots) -> Vec<String> {
    let len = slots.slot(0).load_acquire().min(BYTES as u64) as usize;
    let words = 1..1 + len.div_ceil(WORD);
    let mut bytes: Vec<u8> = words
        .flat_map(|index| slots.slot(index).get().to_le_bytes())
        .collect();
    bytes.truncate(len);
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split('\n').filter(|line| !line.is_empty());
    lines
        .take(MAX_PANICS)
        .map(|line| Printable(line).to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_panics_are_read_back_escaped() {
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
        write_to(&slots, panics.into_iter());
        let mut expected = panics.map(str::to_owned);
        expected[0] = r"panicked at a.rs:1:2: boom\n\u{1b}[2J".to_owned();
        assert_eq!(read(&slots), expected[..MAX_PANICS]);
    }

    #[test]
    fn forged_text_is_bounded_and_escaped() {
        let slots = Slots::in_process(SLOTS);
        for len in [1, 7, BYTES as u64, BYTES as u64 + 1, u64::MAX] {
            for fill in [u64::MAX, 0, 0x0a1b_0a1b_0a1b_0a1b, 0x4141_4141_4141_4141] {
                (1..SLOTS).for_each(|index| slots.slot(index).set(fill));
                slots.slot(0).store_release(len);
                let panics = read(&slots);
                assert!(panics.len() <= MAX_PANICS);
                for panic in panics {
                    assert!(panic.len() <= BYTES * 6, "{}", panic.len());
                    assert!(!panic.contains(char::is_control), "{panic:?}");
                }
            }
        }
    }
}

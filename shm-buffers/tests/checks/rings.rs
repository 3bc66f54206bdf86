//! Properties of a ring whose words any process may write at any time: no operation panics or allocates without bound, and
//! until a false word is written, the frames come out as they went in.

use std::collections::VecDeque;

use shm_buffers::ring::{Consumer, Producer, PushError};
use shm_buffers::slots::Slots;
use shm_buffers::{Layout, Region};

const CAPACITY: usize = 256;

/// Runs the operations that the bytes encode, on both ends of one ring.
pub(crate) fn run(input: &[u8]) {
    let mut layout = Layout::new();
    let span = layout.ring(CAPACITY);
    let region = Region::on_heap(layout.byte_len());
    // The same memory again, as words that a hostile peer can write.
    let mut overlay = Layout::new();
    let words = overlay.slots(layout.byte_len() / 8);
    let words = Slots::new(&region, words);
    let (mut tx, mut rx) = (Producer::new(&region, span), Consumer::new(&region, span));

    let mut honest = true;
    let (mut staged, mut sent) = (Vec::new(), VecDeque::new());
    let mut bytes = input.iter().copied();
    let mut next = || bytes.next();
    while let Some(op) = next() {
        match op % 8 {
            0 | 1 => {
                let len = next().unwrap_or(0) as usize * if op & 8 == 0 { 1 } else { 9 };
                let frame: Vec<u8> = (0..len).map(|i| (i as u8) ^ op).collect();
                let (head, tail) = frame.split_at(len / 3);
                let result = match op % 8 {
                    0 => tx.stage(&frame),
                    _ => tx.stage_parts(&[head, tail]),
                };
                match result {
                    Ok(()) => staged.push(frame),
                    Err(PushError::TooLarge { len, max }) => assert!(len > max),
                    Err(PushError::Full) => {}
                    Err(PushError::Corrupt(_)) => assert!(!honest, "an honest ring is corrupt"),
                    Err(_) => {}
                }
            }
            2 => {
                let _ = tx.publish();
                sent.extend(staged.drain(..));
            }
            3 => {
                let mut out = vec![0xaa];
                match rx.pop(&mut out) {
                    Ok(Some(len)) => {
                        assert!(out.len() == len + 1 && len <= CAPACITY);
                        if honest {
                            assert_eq!(sent.pop_front().as_deref(), Some(&out[1..]));
                        }
                    }
                    Ok(None) => assert!(!honest || sent.is_empty(), "frames are lost"),
                    Err(_) => {
                        assert!(!honest, "an honest ring is corrupt");
                        assert_eq!(out, [0xaa]);
                        assert!(rx.pop(&mut out).is_err(), "a corrupt ring stays corrupt");
                    }
                }
                let _ = rx.finish_read();
            }
            4 => {
                let _ = rx.arm(u64::from(op >> 3));
                let _ = rx.disarm();
            }
            5 => {
                let _ = tx.publish();
                sent.extend(staged.drain(..));
                let _ = tx.arm(next().unwrap_or(0) as usize);
                let _ = tx.disarm();
            }
            6 => {
                let used = tx.used();
                assert!(used.map_or(!honest, |used| used <= CAPACITY));
                let _ = rx.is_empty();
            }
            _ => {
                // Writes a false value into any word: a small or a large number, or one close to the old value.
                honest = false;
                let at = next().unwrap_or(0) as usize % words.len();
                let value = u64::from(next().unwrap_or(0));
                let word = words.slot(at);
                match op >> 3 & 3 {
                    0 => word.set(value),
                    1 => word.set(!value),
                    2 => word.set(value | (!value & 0xffff_ffff) << 32),
                    _ => word.set(word.get().wrapping_add(value).wrapping_sub(128)),
                }
            }
        }
    }
}

//! Tests of both ends of an arena.

use super::events::Event;
use super::*;

fn arena(bytes: usize) -> (BlockWriter, BlockReader) {
    let mut layout = Layout::new();
    // The arena is neither the first nor the last part of its region.
    layout.slots(3);
    let span = layout.arena(bytes);
    layout.slots(3);
    let region = Region::on_heap(layout.byte_len());
    (BlockWriter::new(&region, span), BlockReader::new(&region, span))
}

fn release(reader: &mut BlockReader, writer: &mut BlockWriter, block: Block) {
    reader.release(block);
    writer.collect().expect("it was in flight");
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at * 7 + seed) as u8).collect()
}

#[test]
fn a_block_is_read_as_it_was_written() {
    let (mut writer, mut reader) = arena(1 << 20);
    for len in [1, 7, 8, 9, 127, 128, 129, 4095, writer.max_block()] {
        let block = writer.next_block(len).expect("no block is in flight");
        let sent = bytes(len as u64, len);
        writer.write(block, &sent).expect("it is the next block");
        let mut copy = b"before".to_vec();
        reader.read(block, &mut copy).expect("it is there");
        assert_eq!(copy.split_off(6), sent, "{len}");
        release(&mut reader, &mut writer, block);
        assert_eq!(writer.in_flight(), 0);
    }
}

#[test]
fn blocks_in_flight_never_overlap_and_space_is_reused() {
    let (mut writer, mut reader) = arena(16 << 10);
    let mut random = 1u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let mut in_flight = Vec::new();
    for round in 0..20_000 {
        let len = 1 + next(2000) as usize;
        let block = match round % 2 {
            0 => writer.next_block(len),
            _ => writer.whole_block(len),
        };
        if let Some(block) = block {
            assert_eq!(block.len, len as u64);
            let sent = bytes(round, len);
            writer.write(block, &sent).expect("it is the next block");
            in_flight.push((block, sent));
        } else {
            assert!(!in_flight.is_empty(), "an empty arena has space");
        }
        for _ in 0..next(3).min(in_flight.len() as u64) {
            let (block, sent) = in_flight.swap_remove(next(in_flight.len() as u64) as usize);
            let mut copy = Vec::new();
            reader.read(block, &mut copy).expect("it is there");
            assert_eq!(copy, sent);
            reader.release(block);
        }
        writer.collect().expect("they were in flight");
        assert_eq!(writer.in_flight(), in_flight.len());
        assert_eq!(writer.untaken(), in_flight.len());
        assert_eq!(writer.released(), reader.count_released());
        assert_eq!(writer.taken(), reader.count_released());
        let bytes = in_flight
            .iter()
            .map(|(block, _)| block.len.next_multiple_of(ALIGN));
        assert_eq!(writer.in_flight_bytes(), bytes.sum::<u64>());
    }
}

#[test]
fn free_bytes_between_blocks_in_flight_are_used_first() {
    let (mut writer, mut reader) = arena(1 << 16);
    let write = |writer: &mut BlockWriter, len: usize| {
        let block = writer.next_block(len).expect("there is space");
        writer.write(block, &vec![0; len]).expect("it is the next block");
        block
    };
    let blocks = [1000, 2000, 3000, 4000].map(|len| write(&mut writer, len));
    release(&mut reader, &mut writer, blocks[2]);
    release(&mut reader, &mut writer, blocks[0]);
    assert_eq!(write(&mut writer, 3000).offset, blocks[2].offset);
    assert_eq!(write(&mut writer, 900).offset, 0);
    assert!(write(&mut writer, 900).offset > blocks[3].offset);
}

#[test]
fn a_payload_goes_on_in_small_parts_between_blocks_that_are_not_released() {
    let (mut writer, mut reader) = arena(1 << 20);
    let mut blocks = Vec::new();
    while blocks.len() < writer.max_in_flight() {
        let block = writer.whole_block(8 << 10).expect("there is space");
        writer.write(block, &[0; 8 << 10]).expect("it is the next block");
        blocks.push(block);
    }
    assert_eq!(writer.next_block(1), None);
    for block in blocks.into_iter().step_by(2) {
        release(&mut reader, &mut writer, block);
    }
    assert_eq!(writer.whole_block(16 << 10), None);
    let part = writer.next_block(writer.max_block()).expect("there is space");
    assert_eq!((part.offset, part.len), (0, 8 << 10));
    writer.write(part, &[0; 256 << 10]).expect("it is the next block");
}

#[test]
fn no_more_blocks_are_in_flight_than_can_come_back() {
    let (mut writer, mut reader) = arena(1 << 16);
    let mut blocks = Vec::new();
    while let Some(block) = writer.next_block(1) {
        writer.write(block, &[0]).expect("it is the next block");
        blocks.push(block);
    }
    assert_eq!(blocks.len(), writer.max_in_flight());
    blocks.reverse();
    for block in blocks {
        release(&mut reader, &mut writer, block);
    }
    assert_eq!(writer.in_flight(), 0);
}

#[test]
fn whole_blocks_are_larger_than_parts() {
    let (mut writer, _) = arena(16 << 20);
    assert_eq!((writer.max_block(), writer.max_whole_block()), (1 << 20, 4 << 20));
    assert_eq!(writer.next_block(4 << 20).expect("there is space").len, 1 << 20);
    let block = writer.whole_block(4 << 20).expect("there is space");
    assert_eq!((block.offset, block.len), (0, 4 << 20));
    assert_eq!(writer.whole_block((4 << 20) + 1), None);
    assert_eq!(writer.whole_block(0), None);
}

#[test]
fn a_single_block_in_flight_always_starts_at_0() {
    let (mut writer, mut reader) = arena(16 << 20);
    for _ in 0..100 {
        let block = writer.next_block(1 << 20).expect("no block is in flight");
        assert_eq!(block.offset, 0);
        writer.write(block, &[0; 1 << 20]).expect("it is the next block");
        release(&mut reader, &mut writer, block);
    }
}

#[test]
fn impossible_blocks_are_refused_without_effect() {
    let (mut writer, mut reader) = arena(1 << 12);
    let capacity = 1 << 12;
    let mut copy = b"before".to_vec();
    for (offset, len) in [
        (0, 0),
        (0, capacity + 1),
        (128, capacity),
        (capacity, 1),
        (1, 1),
        (8, 8),
        (u64::MAX - 127, 128),
        (!127, u64::MAX),
        (0, u64::MAX),
    ] {
        let block = Block { offset, len };
        let refused = reader.read(block, &mut copy).expect_err("impossible");
        assert!(matches!(refused, BlockError::Impossible { .. }), "{refused}");
        writer.write(block, &[0; 8]).expect_err("impossible");
    }
    assert_eq!((copy.as_slice(), writer.in_flight()), (&b"before"[..], 0));
    reader
        .read(
            Block {
                offset: 0,
                len: capacity,
            },
            &mut copy,
        )
        .expect("all of it");
}

#[test]
fn an_arena_shrinks_when_the_system_has_no_memory() {
    let (mut writer, mut reader) = arena(1 << 20);
    let first = writer.next_block(1000).expect("there is memory");
    writer.write(first, &[0; 1000]).expect("it is the next block");
    writer.shrink_to_touched();
    assert_eq!(writer.next_block(1), None, "a block is in flight");
    release(&mut reader, &mut writer, first);
    let second = writer.next_block(1 << 20).expect("there is space");
    assert_eq!((second.offset, second.len), (0, 1024));
    assert_eq!(writer.whole_block(1025), None);
    writer.shrink_to(0);
    assert_eq!(writer.next_block(1), None, "the arena has no pages at all");
}

/// Pages that were returned to the system are read as zeros.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_arena_returns_its_pages_and_is_used_again() {
    const LEN: usize = 1 << 20;
    let mut layout = Layout::new();
    let before = layout.slots(1);
    let span = layout.arena(LEN);
    let after = layout.slots(1);
    let region = Region::create(&crate::Backing::Anonymous, layout.byte_len()).expect("there is memory");
    let neighbours = [before, after].map(|span| crate::slots::Slots::new(&region, span));
    neighbours.iter().for_each(|slots| slots.slot(0).set(7));
    let (mut writer, mut reader) = (BlockWriter::new(&region, span), BlockReader::new(&region, span));
    let ones = vec![1; writer.max_block()];
    for _ in 0..3 {
        let block = writer.next_block(LEN).expect("there is space");
        writer.write(block, &ones).expect("it is the next block");
        writer.release_pages();
        let mut copy = Vec::new();
        reader.read(block, &mut copy).expect("it is there");
        assert_eq!(copy, ones, "a block in flight keeps its pages");
        release(&mut reader, &mut writer, block);
        writer.release_pages();
        reader.expect_new_pages();
        copy.clear();
        reader.read(block, &mut copy).expect("it is there");
        // The pages at both ends are shared with others.
        let zeros = copy.iter().filter(|byte| **byte == 0).count();
        assert!(zeros >= copy.len() - 2 * 4096, "{zeros} of {}", copy.len());
    }
    assert!(neighbours.iter().all(|slots| slots.slot(0).get() == 7));
}

#[test]
fn pages_behind_the_last_block_in_flight_are_returned() {
    let mut layout = Layout::new();
    let span = layout.arena(1 << 20);
    let region = Region::create(&crate::Backing::Anonymous, layout.byte_len()).expect("there is memory");
    let (mut writer, mut reader) = (BlockWriter::new(&region, span), BlockReader::new(&region, span));
    let blocks = [1, 2].map(|content| {
        let block = writer.next_block(100_000).expect("there is space");
        writer
            .write(block, &[content; 100_000])
            .expect("it is the next block");
        block
    });
    release(&mut reader, &mut writer, blocks[1]);
    writer.release_pages();
    reader.expect_new_pages();
    let mut copy = Vec::new();
    reader.read(blocks[0], &mut copy).expect("it is there");
    assert_eq!(copy, [1; 100_000]);
    if cfg!(target_os = "linux") {
        assert!(writer.touched() < 101_000);
        copy.clear();
        reader.read(blocks[1], &mut copy).expect("it is there");
        assert!(copy.iter().filter(|byte| **byte == 0).count() > 90_000);
    }
    assert_eq!(writer.next_block(100_000), Some(blocks[1]));
    writer
        .write(blocks[1], &[3; 100_000])
        .expect("it is the next block");
}

#[test]
fn what_a_reader_cannot_take_or_release_is_refused() {
    let ends = || {
        let (mut writer, reader) = arena(1 << 12);
        for _ in 0..2 {
            let block = writer.next_block(100).expect("there is space");
            writer.write(block, &[0; 100]).expect("it is the next block");
        }
        (writer, reader)
    };
    let offsets = |events: &[Event]| {
        let (mut writer, mut reader) = ends();
        events.iter().for_each(|event| reader.events.push(*event));
        writer.collect()
    };
    use Event::{Released, Taken};
    for forged in [
        &[Released(256)][..],
        &[Released(64 * ALIGN)],
        &[Released(u64::from(u32::MAX) * ALIGN)],
        &[Taken(256)],
        &[Released(0), Released(0)],
        &[Released(0), Taken(0)],
        &[Taken(0), Taken(0)],
        &[Taken(0), Taken(128), Released(128), Released(0), Released(0)],
    ] {
        offsets(forged).expect_err("impossible");
    }
    offsets(&[Taken(128), Released(128), Released(0)]).expect("possible");
}

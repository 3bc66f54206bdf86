//! The values of a span within their bound: of each field the newest.
//!
//! The bytes are those that travel: batches, each with its number, the count and length of its entries, and these.

use std::collections::HashSet;
use std::ops::Range;

use crate::reader::Reader;
use crate::wire::{BATCH_HEAD, Flaw, skip_entry};

/// One recorded value, by where it is.
struct Entry {
    batch: usize,
    bytes: Range<usize>,
}

/// The numbers of the batches, and each value with its field.
struct Parsed {
    numbers: Vec<u32>,
    entries: Vec<(u64, Entry)>,
}

/// Removes values that a later one of their field stands for and, should that not be enough, the oldest ones, until no
/// more than `max` bytes are left. Gives how many fields are left without a value.
pub(crate) fn keep(values: &mut Vec<u8>, max: usize) -> u16 {
    if values.len() <= max {
        return 0;
    }
    let Ok(Parsed { numbers, entries }) = parse(values) else {
        // What we wrote ourselves is well-formed.
        return 0;
    };
    let mut seen = HashSet::new();
    let mut left = max;
    // The first batch stays, be it empty: by it the span is made.
    let mut batch_taken = 0;
    left = left.saturating_sub(BATCH_HEAD);
    let mut lost = 0_u16;
    let mut kept = Vec::new();
    for (field, entry) in entries.into_iter().rev() {
        if !seen.insert(field) {
            continue;
        }
        let head = match entry.batch == 0 || entry.batch == batch_taken {
            true => 0,
            false => BATCH_HEAD,
        };
        if head + entry.bytes.len() > left {
            lost = lost.saturating_add(1);
            continue;
        }
        left -= head + entry.bytes.len();
        batch_taken = entry.batch;
        kept.push(entry);
    }
    let mut out = Vec::with_capacity(max);
    let mut kept = kept.into_iter().rev().peekable();
    for (index, number) in numbers.into_iter().enumerate() {
        let start = out.len();
        out.extend_from_slice(&[0; BATCH_HEAD]);
        let mut count = 0;
        while let Some(entry) = kept.next_if(|entry| entry.batch == index) {
            out.extend_from_slice(&values[entry.bytes]);
            count += 1;
        }
        match count == 0 && index > 0 {
            true => out.truncate(start),
            false => put_head(&mut out, start, number, count),
        }
    }
    *values = out;
    lost
}

/// Writes the head of the batch that begins at `start` and ends with `out`.
pub(crate) fn put_head(out: &mut [u8], start: usize, number: u32, count: u16) {
    let len = (out.len() - start - BATCH_HEAD) as u16;
    let head = &mut out[start..start + BATCH_HEAD];
    head[..4].copy_from_slice(&number.to_le_bytes());
    head[4..6].copy_from_slice(&count.to_le_bytes());
    head[6..8].copy_from_slice(&len.to_le_bytes());
}

fn parse(values: &[u8]) -> Result<Parsed, Flaw> {
    let mut numbers = Vec::new();
    let mut entries = Vec::new();
    let mut reader = Reader::new(values);
    while !reader.rest().is_empty() {
        numbers.push(reader.u32()?);
        let (count, _) = (reader.u16()?, reader.u16()?);
        for _ in 0..count {
            let start = values.len() - reader.rest().len();
            let field = skip_entry(&mut reader)?;
            let end = values.len() - reader.rest().len();
            let batch = numbers.len() - 1;
            entries.push((
                field,
                Entry {
                    batch,
                    bytes: start..end,
                },
            ));
        }
    }
    Ok(Parsed { numbers, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TAG_U64;

    fn batch(number: u32, values: &[(u8, u8)]) -> Vec<u8> {
        let mut out = vec![0; BATCH_HEAD];
        for (field, value) in values {
            out.extend([*field, TAG_U64, *value]);
        }
        put_head(&mut out, 0, number, values.len() as u16);
        out
    }

    #[test]
    fn of_each_field_the_newest_value_stays() {
        let mut values = [
            batch(0, &[(1, 10), (2, 20)]),
            batch(1, &[(2, 21), (3, 30)]),
            batch(2, &[(2, 22)]),
            batch(3, &[(4, 40), (2, 23)]),
        ]
        .concat();
        let whole = values.clone();
        assert_eq!(keep(&mut values, whole.len()), 0);
        assert_eq!(values, whole, "nothing is removed without need");
        assert_eq!(keep(&mut values, whole.len() - 1), 0);
        let expected = [
            batch(0, &[(1, 10)]),
            batch(1, &[(3, 30)]),
            batch(3, &[(4, 40), (2, 23)]),
        ];
        assert_eq!(values, expected.concat());
    }

    #[test]
    fn where_not_all_fields_fit_the_oldest_go() {
        let mut values = [batch(0, &[(1, 10)]), batch(1, &[(2, 20)]), batch(7, &[(3, 30)])].concat();
        assert_eq!(keep(&mut values, 2 * BATCH_HEAD + 6), 1);
        assert_eq!(values, [batch(0, &[(1, 10)]), batch(7, &[(3, 30)])].concat());
        assert_eq!(keep(&mut values, 2 * BATCH_HEAD + 3), 1);
        assert_eq!(values, [batch(0, &[]), batch(7, &[(3, 30)])].concat());
    }
}

//! Keeps the values of a span within their bound: of each field the newest.
//!
//! The bytes are those of the record: updates, each with its header and values.

use std::collections::HashSet;
use std::ops::Range;

use crate::wire::bytes::ByteReader;
use crate::wire::error::Malformed;
use crate::wire::record::{UPDATE_HEADER, read_update_header, write_update_header};
use crate::wire::value::skip_field_value;

/// Where a recorded value is.
struct StoredValue {
    /// The index of its update.
    update: usize,
    bytes: Range<usize>,
}

struct Parsed {
    /// The numbers of the updates.
    numbers: Vec<u32>,
    /// Each value with its field, oldest first.
    values: Vec<(u64, StoredValue)>,
}

/// Shortens the updates of a span to at most `max` bytes: removes values that a later value of the same field has
/// replaced and, if that is not enough, the oldest ones. Returns how many fields have no value left.
pub(super) fn shorten(updates: &mut Vec<u8>, max: usize) -> u16 {
    if updates.len() <= max {
        return 0;
    }
    let Ok(Parsed { numbers, values }) = parse(updates) else {
        // Unreachable: the encoder wrote them.
        return 0;
    };
    let mut seen = HashSet::new();
    let mut left = max;
    // The first update stays even without values: the leader creates the span from it.
    let mut last_update = 0;
    left = left.saturating_sub(UPDATE_HEADER);
    let mut lost = 0_u16;
    let mut kept = Vec::new();
    for (field, value) in values.into_iter().rev() {
        if !seen.insert(field) {
            continue;
        }
        let header = match value.update == 0 || value.update == last_update {
            true => 0,
            false => UPDATE_HEADER,
        };
        if header + value.bytes.len() > left {
            lost = lost.saturating_add(1);
            continue;
        }
        left -= header + value.bytes.len();
        last_update = value.update;
        kept.push(value);
    }
    let mut out = Vec::with_capacity(max);
    let mut kept = kept.into_iter().rev().peekable();
    for (index, number) in numbers.into_iter().enumerate() {
        let start = out.len();
        out.extend_from_slice(&[0; UPDATE_HEADER]);
        let mut count = 0;
        while let Some(value) = kept.next_if(|value| value.update == index) {
            out.extend_from_slice(&updates[value.bytes]);
            count += 1;
        }
        match count == 0 && index > 0 {
            true => out.truncate(start),
            false => write_update_header(&mut out, start, number, count),
        }
    }
    *updates = out;
    lost
}

fn parse(updates: &[u8]) -> Result<Parsed, Malformed> {
    let mut numbers = Vec::new();
    let mut values = Vec::new();
    let mut reader = ByteReader::new(updates);
    while !reader.rest().is_empty() {
        let (number, count, _) = read_update_header(&mut reader)?;
        numbers.push(number);
        for _ in 0..count {
            let start = updates.len() - reader.rest().len();
            let field = skip_field_value(&mut reader)?;
            let end = updates.len() - reader.rest().len();
            let update = numbers.len() - 1;
            values.push((
                field,
                StoredValue {
                    update,
                    bytes: start..end,
                },
            ));
        }
    }
    Ok(Parsed { numbers, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::value::TAG_U64;

    fn update(number: u32, values: &[(u8, u8)]) -> Vec<u8> {
        let mut out = vec![0; UPDATE_HEADER];
        for (field, value) in values {
            out.extend([*field, TAG_U64, *value]);
        }
        write_update_header(&mut out, 0, number, values.len() as u16);
        out
    }

    #[test]
    fn only_the_newest_value_of_each_field_stays() {
        let mut values = [
            update(0, &[(1, 10), (2, 20)]),
            update(1, &[(2, 21), (3, 30)]),
            update(2, &[(2, 22)]),
            update(3, &[(4, 40), (2, 23)]),
        ]
        .concat();
        let whole = values.clone();
        assert_eq!(shorten(&mut values, whole.len()), 0);
        assert_eq!(values, whole, "nothing is removed without need");
        assert_eq!(shorten(&mut values, whole.len() - 1), 0);
        let expected = [
            update(0, &[(1, 10)]),
            update(1, &[(3, 30)]),
            update(3, &[(4, 40), (2, 23)]),
        ];
        assert_eq!(values, expected.concat());
    }

    #[test]
    fn the_oldest_values_are_lost_if_not_all_fields_fit() {
        let mut values = [
            update(0, &[(1, 10)]),
            update(1, &[(2, 20)]),
            update(7, &[(3, 30)]),
        ]
        .concat();
        assert_eq!(shorten(&mut values, 2 * UPDATE_HEADER + 6), 1);
        assert_eq!(values, [update(0, &[(1, 10)]), update(7, &[(3, 30)])].concat());
        assert_eq!(shorten(&mut values, 2 * UPDATE_HEADER + 3), 1);
        assert_eq!(values, [update(0, &[]), update(7, &[(3, 30)])].concat());
    }
}

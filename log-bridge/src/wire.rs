//! The record format that workers write and the leader reads, and the counters that both see.
//!
//! All numbers are little-endian. The first two bytes of a frame are the version and the kind. In an event, the rest of
//! its fixed header follows, then:
//!
//! ```text
//! thread name | callsite | values | innermost span | … | outermost span
//! span:     unique id u64 | version u32 | length of updates u32 | callsite | update | update | …
//! update:   number u32 | number of values u16 | length of values u16 | values
//! values:   value | value | …
//! value:    index in the callsite's field set (varint) | tag u8 | bytes of the value
//! callsite: 0 | length u16 | metadata                 for this record only
//!           1 | number u16 | length u16 | metadata    and the number that stands for it from now on
//!           2 | number u16                            the number of a callsite that was defined before
//! ```
//!
//! Update 0 has the values that a span was created with, a later one those of one `Span::record`. The span's version is
//! the number of its last update. An update may be missing if later ones have replaced all its values.
//!
//! A definition travels inside the first records that need it. The worker refers to a number only after a record that
//! defines it was published; if that record is dropped, the next one carries the definition again.
//!
//! Imports run down this list: `record`, `value` and `callsite`, `bytes`, `error`, `limits` and `level`; `counters`
//! needs only `level`, `link` and `shared_memory` need `counters`.

pub(crate) mod bytes;
pub(crate) mod callsite;
pub(crate) mod counters;
pub(crate) mod error;
pub(crate) mod level;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod record;
pub(crate) mod shared_memory;
pub(crate) mod value;

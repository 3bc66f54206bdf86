//! Python values as bytes: the few types that most tasks and outputs consist of. Everything else is pickled whole.
//!
//! ```text
//! N T F      None, True, False
//! i q        an int of 1 byte, of 8 bytes
//! d          a float
//! s S b B    a str or bytes; the length is 1 byte (lower case) or 8 bytes
//! ( [ {      a tuple, list, dict: the number of elements, then those; `n` elements of 1 byte each for lengths below 255, or 255 and 8 bytes
//! A a        an array (A) or a scalar of NumPy (a): type of elements, dimensions, length of each, padding to 16 bytes from the start of
//!            the payload, the elements in C order
//! ```
//!
//! Numbers are little-endian. Only exact types are encoded: an instance of a subclass may have more than its value. Equal objects that
//! are one object before become several: values are kept, identities are not. Cycles end at [`MAX_DEPTH`] and are left to pickle.

mod arrays;
mod decode;
mod encode;

pub(crate) use decode::{Decoder, Source};
pub(crate) use encode::{encode, int as encode_int};

/// The deepest nesting that is encoded.
const MAX_DEPTH: usize = 32;

/// Alignment of the elements of an array, from the start of the payload.
const ALIGN: usize = 16;

mod tag {
    pub(super) const NONE: u8 = b'N';
    pub(super) const TRUE: u8 = b'T';
    pub(super) const FALSE: u8 = b'F';
    pub(super) const SMALL_INT: u8 = b'i';
    pub(super) const INT: u8 = b'q';
    pub(super) const FLOAT: u8 = b'd';
    pub(super) const STR: u8 = b's';
    pub(super) const BYTES: u8 = b'b';
    pub(super) const TUPLE: u8 = b'(';
    pub(super) const LIST: u8 = b'[';
    pub(super) const DICT: u8 = b'{';
    pub(super) const ARRAY: u8 = b'A';
    pub(super) const SCALAR: u8 = b'a';
}

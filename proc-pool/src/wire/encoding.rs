//! Serde values as postcard bytes: the format of the handshake, and of the codec `Postcard`.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends the encoding of `value` to `into`.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::to_extend(value, VecWriter(into)).map(drop)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    postcard::from_bytes(bytes)
}

/// Lets postcard append to a borrowed `Vec`.
struct VecWriter<'a>(&'a mut Vec<u8>);

impl Extend<u8> for VecWriter<'_> {
    #[inline]
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

//! [`ByteSize`]: a number of bytes, as text.

use std::fmt;

/// Displays a number of bytes in a binary unit, with one digit after the point: `1023 B`, `1.5 KiB`, `16.0 EiB`.
///
/// ```
/// use shm_buffers::ByteSize;
///
/// assert_eq!(ByteSize(3 << 19).to_string(), "1.5 MiB");
/// assert_eq!(format!("{:>10}", ByteSize(7)), "       7 B");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LARGER_UNITS: [&str; 5] = ["MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = "KiB";
        for larger in LARGER_UNITS {
            // Rounded to one digit, it would be 1024.0.
            if value < 1023.95 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        f.pad(&format!("{value:.1} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_have_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}

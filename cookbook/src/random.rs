//! [`Random`]: numbers that are the same in every run.

/// SplitMix64: a generator of numbers that depend on its seed only.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns a generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let number = self.number() % u64::from(bound);
        u32::try_from(number).expect("it is less than a u32")
    }

    /// Returns a word of `length` letters from `a` to `z`.
    pub fn word(&mut self, length: usize) -> String {
        let letter = |_| char::from(b'a' + u8::try_from(self.below(26)).expect("less than 26"));
        (0..length).map(letter).collect()
    }
}

//! How far a bar goes, and in which unit.

/// How far a bar goes, in its [`Unit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Total {
    /// This many tasks or bytes.
    Known(u64),
    /// The total is not known, or not yet.
    #[default]
    Unknown,
}

impl Total {
    pub(crate) fn known(self) -> Option<u64> {
        match self {
            Self::Known(n) => Some(n),
            Self::Unknown => None,
        }
    }
}

impl From<u64> for Total {
    fn from(n: u64) -> Self {
        Self::Known(n)
    }
}

impl From<Option<u64>> for Total {
    fn from(n: Option<u64>) -> Self {
        n.map_or(Self::Unknown, Self::Known)
    }
}

/// The counts that move a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unit {
    /// Tasks that ended, done or failed.
    #[default]
    Tasks,
    /// Bytes, shown in powers of 1024.
    Bytes,
}

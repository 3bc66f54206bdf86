//! Levels as indices: 0 is ERROR, 4 is TRACE.

use tracing_core::Level;

/// The number of levels.
pub(crate) const LEVELS: usize = 5;

/// Returns the index of a level.
#[inline]
pub(crate) fn level_index(level: Level) -> usize {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// Returns the level of an index; TRACE for any index that [`level_index`] does not return.
pub(crate) fn level_from_index(index: usize) -> Level {
    [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG]
        .get(index)
        .copied()
        .unwrap_or(Level::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_leads_back_to_its_level() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert_eq!(level_from_index(level_index(level)), level);
        }
    }
}

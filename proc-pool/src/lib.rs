//! A spawn-based process pool that survives everything its workers do.

//! Creates the memory that a worker shares with its leader, and decides how much of it is for large payloads.

use crossbeam_channel::Receiver;
use shm_buffers::{Backing, CreateError, Region};

use crate::wire::layout::RegionSizes;

/// Size in bytes of each arena (the memory for large payloads in one direction) on a backing that reserves all of its memory
/// immediately.
const RESERVED_ARENA: usize = 2 << 20;
/// The arenas of all workers together take at most one part in this many of a memory limit.
const LIMIT_PART: u64 = 8;

/// Creates the region. The first call expects the maximum size of an arena in `sizes`, receives the memory limit of this process
/// from `limit`, and replaces the size with one that fits; later calls pass no `limit` and use that size.
pub(super) fn create_region(
    backing: &Backing,
    sizes: &mut RegionSizes,
    workers: usize,
    limit: Option<&Receiver<Option<u64>>>,
) -> Result<Region, CreateError> {
    if let Some(limit) = limit {
        // Without a sender, no limit is known.
        let limit = limit.recv().ok().flatten();
        sizes.arena = arena_size(backing, sizes.arena, limit, workers);
    }
    let made = Region::create_sparse(backing, sizes.layout().bytes);
    if made.is_ok() || sizes.arena <= RESERVED_ARENA {
        return made;
    }
    // The system lacks the preferred backing, and the fallback reserves all of its memory.
    sizes.arena = RESERVED_ARENA;
    Region::create_sparse(backing, sizes.layout().bytes)
}

/// Returns the size of an arena in bytes: `max` where memory is only used once it is touched, and less under a memory limit.
fn arena_size(backing: &Backing, max: usize, limit: Option<u64>, workers: usize) -> usize {
    let is_sparse = cfg!(target_os = "linux") && matches!(backing, Backing::Auto | Backing::Anonymous);
    if !is_sparse {
        return max.min(RESERVED_ARENA);
    }
    let share = limit.map(|limit| limit / LIMIT_PART / (2 * workers.max(1) as u64));
    let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(max);
    // Whole mebibytes.
    (share & !(RESERVED_ARENA / 2 - 1)).clamp(RESERVED_ARENA.min(max), max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 << 20;

    #[cfg(target_os = "linux")]
    #[test]
    fn arenas_are_smaller_under_a_memory_limit() {
        let arena_size = |limit, workers| arena_size(&Backing::Auto, MAX, limit, workers);
        assert_eq!(arena_size(None, 1000), MAX);
        assert_eq!(arena_size(Some(64 << 30), 8), MAX);
        assert_eq!(arena_size(Some(1 << 30), 16), 4 << 20);
        assert_eq!(arena_size(Some(1 << 30), 1000), RESERVED_ARENA);
        assert_eq!(arena_size(Some(0), 0), RESERVED_ARENA);
    }

    #[test]
    fn arenas_are_small_on_backings_that_reserve_memory() {
        for backing in [Backing::Named, Backing::HugePages, Backing::File("dir".into())] {
            assert_eq!(arena_size(&backing, MAX, None, 1), RESERVED_ARENA);
        }
    }
}

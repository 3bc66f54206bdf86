//! The memory that a worker shares with its leader, and how much of it is for large payloads.

use shm_buffers::{Backing, CreateError, Region, Room};

use crate::protocol::Sizes;

/// Memory for large payloads in each direction where all of it counts as soon as it is made, and where the other can't be had.
const RESERVED: usize = 2 << 20;
/// Of a memory limit, the part that all of it may take.
const PART: u64 = 8;

/// Makes it. The first time, `sizes` has the arenas' size for any amount of memory; later, the one that was found to do.
pub(super) fn share(
    backing: &Backing,
    sizes: &mut Sizes,
    workers: usize,
    is_first: bool,
) -> Result<Region, CreateError> {
    if is_first {
        let limit = Room::now().limit;
        sizes.arena = arena(backing, sizes.arena, limit, workers);
    }
    let made = Region::create_sparse(backing, sizes.map().bytes);
    if made.is_ok() || sizes.arena <= RESERVED {
        return made;
    }
    // The system has another backing than the best one: all of its memory is reserved.
    sizes.arena = RESERVED;
    Region::create_sparse(backing, sizes.map().bytes)
}

/// Bytes of an arena: `most` where memory is only taken when it is touched, and less under a limit.
fn arena(backing: &Backing, most: usize, limit: Option<u64>, workers: usize) -> usize {
    let is_sparse = cfg!(target_os = "linux") && matches!(backing, Backing::Auto | Backing::Anonymous);
    if !is_sparse {
        return most.min(RESERVED);
    }
    let fair = limit.map(|limit| limit / PART / (2 * workers.max(1) as u64));
    let fair = fair.and_then(|fair| usize::try_from(fair).ok()).unwrap_or(most);
    // Whole mebibytes.
    (fair & !(RESERVED / 2 - 1)).clamp(RESERVED.min(most), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8 << 20;

    #[cfg(target_os = "linux")]
    #[test]
    fn arenas_are_smaller_under_a_memory_limit() {
        let arena = |limit, workers| arena(&Backing::Auto, MOST, limit, workers);
        assert_eq!(arena(None, 1000), MOST);
        assert_eq!(arena(Some(64 << 30), 8), MOST);
        assert_eq!(arena(Some(1 << 30), 16), 4 << 20);
        assert_eq!(arena(Some(1 << 30), 1000), RESERVED);
        assert_eq!(arena(Some(0), 0), RESERVED);
    }

    #[test]
    fn arenas_are_small_where_their_memory_is_reserved() {
        for backing in [Backing::Named, Backing::HugePages, Backing::File("dir".into())] {
            assert_eq!(arena(&backing, MOST, None, 1), RESERVED);
        }
    }
}

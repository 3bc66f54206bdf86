//! Creates the memory that a worker shares with its leader.

use shm_buffers::{Backing, CreateError, Region, limits};

use crate::wire::layout::RegionSizes;

/// Size in bytes of each arena (the memory for large payloads in one direction) where all memory is reserved immediately, or little
/// is left.
const SMALL_ARENA: usize = 1 << 20;
/// An arena is at most this fraction of the address space that a limit leaves. Each worker has two.
const ADDRESS_SPACE: u64 = 256;

/// Creates the region. Reduces the size of the arenas in `sizes` if the system has no room for larger ones.
pub(super) fn create_region(backing: &Backing, sizes: &mut RegionSizes) -> Result<Region, CreateError> {
    let is_sparse = cfg!(target_os = "linux") && matches!(backing, Backing::Auto | Backing::Anonymous);
    if !is_sparse {
        sizes.arena = sizes.arena.min(SMALL_ARENA);
    }
    if let Some(space) = limits::address_space() {
        let part = usize::try_from(space.remaining / ADDRESS_SPACE).unwrap_or(usize::MAX);
        sizes.arena = sizes.arena.min(part.max(SMALL_ARENA)) / SMALL_ARENA * SMALL_ARENA;
    }
    let made = Region::create_sparse(backing, sizes.layout().bytes);
    if made.is_ok() || sizes.arena <= SMALL_ARENA {
        return made;
    }
    // A limit on file sizes, or the system lacks the preferred backing and the fallback reserves all of its memory.
    sizes.arena = SMALL_ARENA;
    Region::create_sparse(backing, sizes.layout().bytes)
}

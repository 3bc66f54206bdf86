//! The worker's entry point: how the leader says which function a worker shall run.
//!
//! A worker program of its own knows its ops by name: see [`Registry`]. As for workers that are the leader's own
//! program:
//!
//! A function pointer means nothing in another process: address spaces are randomized. But a worker runs the same
//! executable, so that the distance between two functions of it is the same there. What crosses is the distance
//! from an anchor, with a fingerprint of the executable, without which it would be an invitation to jump anywhere.
#![allow(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::PoolError;
use crate::os;
use crate::registry::{Named, Registry};
use crate::worker::Bootstrap;

/// What a worker process runs instead of `main`.
pub(crate) type Main = fn(Bootstrap) -> !;

/// Which function a worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    Own(Place),
    Named(Named),
}

impl Entry {
    /// The function in this process, which has the ops of `registry` by name.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn resolve(&self, registry: Option<&Registry>) -> Result<Main, String> {
        match (self, registry) {
            (Self::Own(place), _) => place
                .resolve()
                .ok_or_else(|| "runs another executable than its leader; was it replaced?".to_owned()),
            (Self::Named(op), Some(registry)) => registry.find(op),
            (Self::Named(_), None) => {
                Err("has no ops by name: its program called `init` before `Registry::serve`".to_owned())
            }
        }
    }
}

/// A function of this executable, in a form that another process running it understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    distance: usize,
    image: os::Image,
}

#[inline(never)]
fn anchor() {}

fn anchor_address() -> usize {
    anchor as fn() as usize
}

impl Place {
    /// # Errors
    /// [`PoolError::EntryOutsideImage`] if `main` is not in the executable that the anchor is in.
    pub(crate) fn of(main: Main) -> Result<Self, PoolError> {
        let address = main as usize;
        if !os::same_image(address, anchor_address()) {
            return Err(PoolError::EntryOutsideImage);
        }
        let image = os::Image::own().map_err(PoolError::io("identify the program's executable"))?;
        Ok(Self {
            distance: address.wrapping_sub(anchor_address()),
            image,
        })
    }

    /// The function in this process; `None` in any other executable than the leader's.
    fn resolve(self) -> Option<Main> {
        if os::Image::own().ok()? != self.image {
            return None;
        }
        let address = anchor_address().wrapping_add(self.distance);
        // SAFETY: the leader made `distance` from a `Main` and the anchor, both in one loaded object (checked by
        // `of`), and that object is the executable with the same identity as ours (checked above): device,
        // inode, size and time of modification. Objects are loaded as a whole, so the same distance leads to the
        // same function, which has type `Main`. The message came over a connection authenticated by a token
        // that only the leader and its child know.
        Some(unsafe { std::mem::transmute::<usize, Main>(address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(_: Bootstrap) -> ! {
        unreachable!("only its address matters")
    }

    #[test]
    fn resolves_to_the_same_function() {
        let entry = Place::of(one).expect("it is in this executable");
        assert_eq!(
            entry.resolve().map(|main| main as usize),
            Some(one as Main as usize)
        );
    }

    #[test]
    fn another_image_is_refused() {
        let mut entry = Place::of(one).expect("it is in this executable");
        entry.image = os::Image::other();
        assert!(entry.resolve().is_none());
    }
}

//! [`fingerprint`]: a hash of the contents of a model.

use serde::Serialize;

use super::account::Account;
use super::path::WithPaths;
use super::share::encode_error;
use crate::buffer::out_of_band;
use crate::model::error::ShareError;

/// Returns a hash (XXH3, 64 bits) of the contents of a model: of its buffers, and of everything else as it is serialized. It is the
/// same in each process, and for a model and its copy in shared memory, wherever their buffers are.
///
/// It reads all of the model, at about the speed of memory. A part with an order of its own in each process, such as a
/// `HashMap`, makes another hash in each; [`StringMap`](crate::StringMap) and [`IntMap`](crate::IntMap) do not.
///
/// ```
/// use shm_buffers::{Backing, Buffer, fingerprint, share};
///
/// let model = ("mean".to_owned(), Buffer::from(vec![0.5; 1000]));
/// let shared: (String, Buffer<f64>) = share(&model, &Backing::Auto)?.load()?;
/// assert_eq!(fingerprint(&model)?, fingerprint(&shared)?);
/// assert_ne!(fingerprint(&model)?, fingerprint(&("mean", Buffer::from(vec![0.5; 999])))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ShareError::Encode`] names the field that can't be serialized.
pub fn fingerprint<M: Serialize + ?Sized>(model: &M) -> Result<u64, ShareError> {
    let account = Account::default();
    let with_paths = WithPaths {
        model,
        account: &account,
    };
    let (mut bytes, hashes) = out_of_band::hashing(|| postcard::to_stdvec(&with_paths))
        .map_err(|error| encode_error(&account, error))?;
    // A length, so that no hash is mistaken for a part of the rest.
    bytes.extend_from_slice(&(hashes.len() as u64).to_le_bytes());
    bytes.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
    Ok(twox_hash::XxHash3_64::oneshot(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, Buffer, StringMap, share};

    #[test]
    fn empty_and_equal_buffers_have_the_fingerprint_of_their_contents() {
        let model: (Buffer<f64>, Buffer<f64>, Vec<Buffer<u8>>) = (
            vec![].into(),
            vec![].into(),
            vec![vec![1, 2].into(), vec![1, 2].into()],
        );
        let shared: (Buffer<f64>, Buffer<f64>, Vec<Buffer<u8>>) = share(&model, &Backing::Auto)
            .expect("small")
            .load()
            .expect("shared");
        let again = (model.1.clone(), model.0.clone(), model.2.clone());
        let first = fingerprint(&model).expect("plain");
        assert_eq!(
            [fingerprint(&shared), fingerprint(&again)].map(|it| it.expect("plain")),
            [first; 2]
        );
        let same_bytes: (Buffer<i64>, Buffer<f64>, Vec<Buffer<u8>>) = (vec![].into(), model.1, model.2);
        assert_ne!(fingerprint(&same_bytes).expect("plain"), first, "other types");
    }

    #[test]
    fn a_changed_byte_anywhere_changes_the_fingerprint() {
        let of = |names: [&str; 2], weights: Vec<f32>, bias: u8| {
            let names: StringMap<Buffer<u32>> = names.into_iter().zip(0_u32..).collect();
            fingerprint(&(names, Buffer::from(weights), bias)).expect("plain")
        };
        let first = of(["a", "b"], vec![1.0; 5000], 7);
        assert_eq!(of(["a", "b"], vec![1.0; 5000], 7), first);
        let mut other = vec![1.0; 5000];
        other[4999] = -1.0;
        assert_ne!(of(["a", "b"], other, 7), first);
        assert_ne!(of(["a", "c"], vec![1.0; 5000], 7), first);
        assert_ne!(of(["a", "b"], vec![1.0; 5000], 8), first);
    }
}

//! Buffers beside an encoding: which buffer of those that were left out a field gets.

use shm_buffers::Buffer;
use shm_buffers::out_of_band::{Received, collect, restore};

/// Bytes that start at an odd address.
struct Shifted(Vec<u64>);

impl AsRef<[u8]> for Shifted {
    fn as_ref(&self) -> &[u8] {
        let bytes: &[u8] = shm_buffers::bytemuck::cast_slice(&self.0);
        &bytes[1..9]
    }
}

fn bytes(buffer: &[u8]) -> Received {
    Received::Bytes(Box::new(buffer.to_vec()))
}

/// Decodes a pair of buffers from the marks of postcard: not here, and the position of one that was left out.
fn pair<T>(positions: [u8; 2], received: Vec<Received>) -> Result<(Buffer<T>, Buffer<T>), postcard::Error>
where
    T: shm_buffers::bytemuck::Pod + Send + Sync,
{
    let encoded = [0, positions[0], 0, positions[1]];
    restore(received, || postcard::from_bytes(&encoded))
}

#[test]
fn positions_are_those_of_collecting() {
    let buffers: Vec<Buffer<u8>> = (0..5)
        .map(|n| Buffer::from(vec![n; 10 + 10 * usize::from(n)]))
        .collect();
    let collected = collect(25, || postcard::to_allocvec(&buffers));
    assert_eq!(collected.buffers.len(), 3);
    let received = collected.buffers.iter().map(|buffer| bytes(buffer)).collect();
    let encoded = collected.result.expect("it can be encoded");
    let back: Vec<Buffer<u8>> = restore(received, || postcard::from_bytes(&encoded)).expect("the same bytes");
    assert_eq!(back, buffers);
}

#[test]
fn buffers_are_restored_in_any_order_and_twice() {
    let both = || vec![bytes(&[1; 9]), bytes(&[2; 20])];
    for positions in [[0, 1], [1, 0], [0, 0], [1, 1]] {
        let (one, two) = pair::<u8>(positions, both()).expect("both arrived");
        for (buffer, position) in [(one, positions[0]), (two, positions[1])] {
            assert_eq!(buffer[0], position + 1);
        }
    }
    pair::<u8>([0, 2], both()).expect_err("there is no third one");
    pair::<u16>([0, 1], both()).expect_err("9 bytes are no whole elements");
    pair::<u8>([0, 0], vec![]).expect_err("none arrived");
}

/// A forged encoding cannot have bytes copied again and again.
#[test]
fn bytes_that_must_be_copied_are_restored_once() {
    let shifted = || {
        vec![
            Received::Bytes(Box::new(Shifted(vec![u64::MAX; 2]))),
            bytes(&[3; 8]),
        ]
    };
    let (one, two) = pair::<u64>([0, 1], shifted()).expect("both arrived");
    assert_eq!((one[0], two[0]), (u64::MAX, 0x0303_0303_0303_0303));
    pair::<u64>([0, 0], shifted()).expect_err("the second copy");
    // These need no copy.
    pair::<u8>([0, 0], shifted()).expect("they share memory");
}

/// Whatever the value before it was.
#[test]
fn values_without_large_buffers_are_encoded_as_always() {
    let value = |len: usize| (7, vec![Buffer::from(vec![1_u8; 9]), Buffer::from(vec![2; len])]);
    let plain = |len| postcard::to_allocvec(&value(len)).expect("it can be encoded");
    for len in [5, 24, 25, 24, 24, 100, 100, 0] {
        let mut runs = 0;
        let collected = collect(25, || {
            runs += 1;
            postcard::to_allocvec(&value(len))
        });
        let encoded = collected.result.expect("it can be encoded");
        assert_eq!(collected.buffers.len(), usize::from(len >= 25), "{len}");
        assert_eq!(encoded == plain(len), len < 25, "{len}");
        assert!(runs <= 2, "{len}: {runs}");
    }
}

/// An error of the value itself is the result, and what was collected before it does not reach the next value.
#[test]
fn errors_leave_nothing_behind() {
    struct Fails;

    impl serde::Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it always fails"))
        }
    }

    let large = || Buffer::from(vec![1_u8; 100]);
    for _ in 0..3 {
        let failed = collect(25, || postcard::to_allocvec(&(large(), Fails)));
        failed.result.expect_err("it always fails");
        collect(25, || postcard::to_allocvec(&Fails))
            .result
            .expect_err("it always fails");
        let collected = collect(25, || postcard::to_allocvec(&large()));
        assert_eq!(collected.buffers.len(), 1);
        assert_eq!(collected.result.expect("it can be encoded"), [0, 0]);
    }
}

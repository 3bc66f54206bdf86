//! Codecs chosen by type: a value that a codec refuses is an error of its task only.

use std::net::IpAddr;

use proc_pool::{BoxError, Builder, Codec, EntryPoint, Fault, Pod, PodVec, Postcard};

use crate::support::{builder, watchdog};

fn two() -> Builder {
    builder(2)
}

#[test]
fn plain_old_data_round_trips() {
    let _watchdog = watchdog(60);
    let op = |n: u32| vec![f64::from(n) / 3.0; n as usize];
    let pool = two()
        .build(EntryPoint::op(op).codecs(Pod, PodVec), &())
        .expect("the pool starts");
    // Small outputs, and one that is sent in pieces.
    for (n, output) in [0, 1, 7, 100_000].into_iter().zip(pool.map([0, 1, 7, 100_000])) {
        assert_eq!(output.expect("no task fails"), op(n));
    }
    let pool = two().build(
        EntryPoint::op(|bytes: Vec<u8>| bytes.len()).codecs(PodVec, Postcard),
        &(),
    );
    let pool = pool.expect("the pool starts");
    let tasks = [vec![], vec![1; 3], vec![2; 1 << 20]];
    let lengths: Vec<usize> = pool.map(tasks).map(|len| len.expect("no task fails")).collect();
    assert_eq!(lengths, [0, 3, 1 << 20]);
}

/// Encodes some numbers as frames of a wrong length, and fails to encode others.
#[derive(Clone, Copy)]
struct WrongLength;

impl Codec<u64> for WrongLength {
    fn encode(value: &u64, into: &mut Vec<u8>) -> Result<(), BoxError> {
        match value % 10 {
            3 => into.extend([0; 7]),
            4 => into.extend([0; 9]),
            5 => Err("five cannot be encoded")?,
            _ => Pod::encode(value, into)?,
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<u64, BoxError> {
        Pod::decode(bytes)
    }
}

#[test]
fn frame_of_a_wrong_length_fails_only_its_task() {
    let _watchdog = watchdog(60);
    let tasks = two()
        .build(EntryPoint::op(|n: u64| n).codecs(WrongLength, Pod), &())
        .expect("the pool starts");
    let outputs = two()
        .build(EntryPoint::op(|n: u64| n).codecs(Pod, WrongLength), &())
        .expect("the pool starts");
    for (task, result) in (0..1000).zip(tasks.map(0..1000)) {
        match result {
            Ok(n) => assert!(n == task && !(3..6).contains(&(n % 10))),
            Err(error) => {
                assert!(error.task == task && (3..6).contains(&(task % 10)), "{error}");
                assert!(matches!(error.fault, Fault::Task(_)), "{error}");
            }
        }
    }
    for (task, result) in (0..1000).zip(outputs.map(0..1000)) {
        let Err(error) = result else {
            assert!(!(3..6).contains(&(task % 10)));
            continue;
        };
        let Fault::Output(reason) = error.fault else {
            panic!("{error}")
        };
        let part = match task % 10 {
            3 => "7 bytes are not one of u64",
            4 => "9 bytes are not one of u64",
            5 => "five cannot be encoded",
            _ => panic!("{task}: {reason}"),
        };
        assert!(reason.contains(part), "{reason}");
    }
}

/// Encodes addresses as text, as serde would not.
#[derive(Clone, Copy)]
struct Text;

impl Codec<IpAddr> for Text {
    fn encode(value: &IpAddr, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<IpAddr, BoxError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

#[test]
fn users_codec_is_used_for_its_type() {
    let _watchdog = watchdog(60);
    let pool = two().build(
        EntryPoint::op(|ip: IpAddr| ip.is_loopback()).codecs(Text, Postcard),
        &(),
    );
    let pool = pool.expect("the pool starts");
    let tasks = ["127.0.0.1", "::1", "10.0.0.1"].map(|ip| ip.parse().expect("an address"));
    let loopback: Vec<bool> = pool.map(tasks).map(|it| it.expect("no task fails")).collect();
    assert_eq!(loopback, [true, true, false]);
}

//! Codecs chosen by type: what they refuse is an error of that task only. Ops with a state of their worker's.

use std::net::IpAddr;

use proc_pool::{BoxError, Builder, Codec, Fault, Pod, PodVec, PoolError, Postcard, WorkerContext, Workers};

use crate::support::watchdog;

fn two() -> Builder {
    Builder::new().workers(Workers::Count(2))
}

#[test]
fn plain_old_data() {
    let _watchdog = watchdog(60);
    let op = |n: u32| vec![f64::from(n) / 3.0; n as usize];
    let pool = two().build_op_with_codecs(op, Pod, PodVec).expect("it starts");
    // Small ones, and such as go through segments.
    for (n, output) in [0, 1, 7, 100_000].into_iter().zip(pool.map([0, 1, 7, 100_000])) {
        assert_eq!(output.expect("no task fails"), op(n));
    }
    let pool = two().build_op_with_codecs(|bytes: Vec<u8>| bytes.len(), PodVec, Postcard);
    let pool = pool.expect("it starts");
    let tasks = [vec![], vec![1; 3], vec![2; 1 << 20]];
    let lengths: Vec<usize> = pool.map(tasks).map(|len| len.expect("no task fails")).collect();
    assert_eq!(lengths, [0, 3, 1 << 20]);
}

/// Makes frames of a wrong length of some numbers, can't do anything with others.
#[derive(Clone, Copy)]
struct Bad;

impl Codec<u64> for Bad {
    fn encode(value: &u64, into: &mut Vec<u8>) -> Result<(), BoxError> {
        match value % 10 {
            3 => into.extend([0; 7]),
            4 => into.extend([0; 9]),
            5 => Err("five can't be told")?,
            _ => Pod::encode(value, into)?,
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<u64, BoxError> {
        Pod::decode(bytes)
    }
}

#[test]
fn frames_of_a_wrong_length() {
    let _watchdog = watchdog(60);
    let tasks = two()
        .build_op_with_codecs(|n: u64| n, Bad, Pod)
        .expect("it starts");
    let outputs = two()
        .build_op_with_codecs(|n: u64| n, Pod, Bad)
        .expect("it starts");
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
            5 => "five can't be told",
            _ => panic!("{task}: {reason}"),
        };
        assert!(reason.contains(part), "{reason}");
    }
}

/// A type that serde does not know how to encode as wanted.
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
fn a_codec_of_ones_own() {
    let _watchdog = watchdog(60);
    let pool = two().build_op_with_codecs(|ip: IpAddr| ip.is_loopback(), Text, Postcard);
    let pool = pool.expect("it starts");
    let tasks = ["127.0.0.1", "::1", "10.0.0.1"].map(|ip| ip.parse().expect("an address"));
    let loopback: Vec<bool> = pool.map(tasks).map(|it| it.expect("no task fails")).collect();
    assert_eq!(loopback, [true, true, false]);
}

#[test]
fn each_worker_has_its_state() {
    let _watchdog = watchdog(60);
    let start = |context: &mut WorkerContext, (first, fail): (u64, bool)| match fail {
        false => Ok((context.worker().0, first)),
        true => Err("no state".into()),
    };
    let op = |(worker, count): &mut (u32, u64), (): ()| {
        *count += 1;
        (*worker, *count)
    };
    let pool = two()
        .build_op_with_state(start, op, &(100, false))
        .expect("it starts");
    let mut counts = [100; 2];
    for output in pool.map([(); 1000]) {
        let (worker, count) = output.expect("no task fails");
        counts[worker as usize] += 1;
        assert_eq!(count, counts[worker as usize]);
    }
    match two().build_op_with_state(start, op, &(0, true)) {
        Err(PoolError::Start { reason, .. }) => assert!(reason.contains("no state"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

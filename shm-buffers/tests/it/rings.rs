//! Rings: order and bounds of frames, and wakeups.

use std::error::Error;

use shm_buffers::ring::{self, Arm, PushError, Wakeup};

/// Returns the next number of a deterministic generator (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn frame(len: usize, salt: u64) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u64).wrapping_mul(salt | 1) as u8)
        .collect()
}

#[test]
fn frames_are_popped_as_they_were_pushed() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(512);
    let mut state = 7;
    let mut expected = std::collections::VecDeque::new();
    let (mut full, mut sent) = (0, 0);
    for _ in 0..100_000 {
        if random(&mut state).is_multiple_of(2) {
            let next = frame((random(&mut state) % 200) as usize, state);
            match tx.push(&next) {
                Ok(()) => {
                    expected.push_back(next);
                    sent += 1;
                }
                Err(PushError::Full) => full += 1,
                Err(other) => return Err(other.into()),
            }
        } else {
            let mut out = vec![1, 2, 3];
            let got = rx.pop(&mut out)?;
            assert_eq!(out[..3], [1, 2, 3], "pop appends");
            match expected.pop_front() {
                Some(wanted) => assert!(got == Some(wanted.len()) && out[3..] == wanted),
                None => assert_eq!(got, None),
            }
        }
    }
    assert!(full > 100 && sent > 10_000, "{full} {sent}");
    Ok(())
}

#[test]
fn stage_parts_stages_one_frame() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(512);
    for len in 0..=40 {
        let whole = frame(len, 5);
        for first in 0..=len {
            for second in first..=len {
                tx.stage_parts(&[&whole[..first], &whole[first..second], &whole[second..]])?;
                tx.publish_quietly();
                let mut out = Vec::new();
                assert_eq!(rx.pop(&mut out)?, Some(len));
                assert_eq!(out, whole);
            }
        }
    }
    Ok(())
}

#[test]
fn staged_frames_are_invisible_until_published() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(512);
    tx.stage(b"a")?;
    tx.stage(b"b")?;
    assert!(rx.is_empty()?);
    tx.publish_quietly();
    let mut out = Vec::new();
    while rx.pop(&mut out)?.is_some() {}
    assert_eq!(out, b"ab");
    Ok(())
}

#[test]
fn the_largest_frame_fits_and_a_larger_one_is_refused() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(1024);
    let max = tx.max_frame();
    assert!(
        matches!(tx.push(&vec![0; max + 1]), Err(PushError::TooLarge { len, max: m }) if len == max + 1 && m == max)
    );
    let mut out = Vec::new();
    for _ in 0..3 {
        tx.push(&frame(max, 3))?;
        assert_eq!(tx.push(b""), Err(PushError::Full));
        out.clear();
        assert_eq!(rx.pop(&mut out)?, Some(max));
        assert!(out == frame(max, 3));
    }
    Ok(())
}

#[test]
fn a_sleeping_consumer_gets_one_wakeup_when_enough_frames_are_published() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(1024);
    tx.stage(b"x")?;
    assert_eq!(tx.publish(), Wakeup::NotNeeded, "the consumer is awake");
    assert_eq!(rx.arm(1).own, Arm::Ready, "the frame is published already");
    rx.pop(&mut Vec::new())?;

    assert_eq!(rx.arm(2).own, Arm::Sleep);
    tx.stage(b"1")?;
    assert_eq!(tx.publish(), Wakeup::NotNeeded, "the consumer waits for two");
    tx.stage(b"2")?;
    assert_eq!(tx.publish(), Wakeup::Needed);
    tx.stage(b"3")?;
    assert_eq!(tx.publish(), Wakeup::NotNeeded, "one wakeup is enough");
    assert_eq!(
        rx.disarm(),
        Arm::WakeupPending,
        "the producer has seen the declaration"
    );
    Ok(())
}

#[test]
fn a_sleeping_producer_gets_one_wakeup_when_the_frame_fits() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(512);
    while tx.push(&[0; 100]).is_ok() {}
    assert_eq!(tx.arm(100)?.own, Arm::Sleep);
    assert_eq!(rx.finish_read(), Wakeup::NotNeeded, "nothing was popped yet");
    rx.pop(&mut Vec::new())?;
    assert_eq!(rx.finish_read(), Wakeup::Needed);
    assert_eq!(rx.finish_read(), Wakeup::NotNeeded);
    tx.push(&[0; 100])?;
    Ok(())
}

/// Both ends sleep whenever they may: the producer with frames that are staged, the consumer with reads that it has not reported
/// and while it waits for more frames than the ring has room for.
#[test]
fn two_threads_that_sleep_by_channels_wake_each_other() -> Result<(), Box<dyn Error>> {
    const FRAMES: u32 = 20_000;
    let (mut tx, mut rx) = ring::in_process(256);
    let (wake_consumer, consumer_wakeups) = crossbeam_channel::unbounded();
    let (wake_producer, producer_wakeups) = crossbeam_channel::unbounded();
    // Waits for the wakeup that is coming, if one is.
    let sleep = |own: Arm, wakeups: &crossbeam_channel::Receiver<()>| match own {
        Arm::Ready => {}
        Arm::Sleep | Arm::WakeupPending => wakeups
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("the peer sends a wakeup"),
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..FRAMES {
                let frame = frame(i as usize % 40, i.into());
                while tx.stage(&frame) == Err(PushError::Full) {
                    let armed = tx.arm(frame.len()).expect("it fits when the ring is empty");
                    if armed.peer == Wakeup::Needed {
                        wake_consumer.send(()).expect("the consumer waits");
                    }
                    sleep(armed.own, &producer_wakeups);
                }
            }
            if tx.publish() == Wakeup::Needed {
                wake_consumer.send(()).expect("the consumer waits");
            }
        });
        let mut out = Vec::new();
        for i in 0..FRAMES {
            out.clear();
            while rx.pop(&mut out)?.is_none() {
                let armed = rx.arm(u64::from((FRAMES - i).min(1 + i % 50)));
                if armed.peer == Wakeup::Needed {
                    wake_producer.send(())?;
                }
                sleep(armed.own, &consumer_wakeups);
            }
            assert!(out == frame(i as usize % 40, i.into()), "frame {i}");
        }
        Ok(())
    })
}

#[test]
fn two_threads_exchange_frames_in_order() -> Result<(), Box<dyn Error>> {
    let (mut tx, mut rx) = ring::in_process(4096);
    const N: u64 = 200_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..N {
                while tx.push(&i.to_le_bytes()[..1 + (i % 8) as usize]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let mut out = Vec::new();
        for i in 0..N {
            out.clear();
            while rx.pop(&mut out)?.is_none() {
                std::thread::yield_now();
            }
            assert_eq!(out, i.to_le_bytes()[..1 + (i % 8) as usize]);
        }
        Ok(())
    })
}

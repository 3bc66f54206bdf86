//! Every interleaving, with loom: `cargo xtask loom`.

use super::*;
use loom::thread;

#[test]
fn loom_frames_arrive_in_order_and_whole() {
    loom::model(|| {
        let (mut tx, mut rx) = in_process(16);
        let producer = thread::spawn(move || {
            let mut sent = 0;
            for i in 1..=2u8 {
                if tx.push(&[i]).is_ok() {
                    sent += 1;
                }
            }
            sent
        });
        let mut got = Vec::new();
        while rx.pop(&mut got).unwrap().is_some() {}
        let sent = producer.join().unwrap();
        while rx.pop(&mut got).unwrap().is_some() {}
        assert_eq!(got.len(), sent);
        assert!(got.is_sorted());
    });
}

#[test]
fn loom_frames_that_are_popped_together_arrive_in_order_and_whole() {
    loom::model(|| {
        let (mut tx, mut rx) = in_process(16);
        let producer = thread::spawn(move || {
            for i in 1..=2u8 {
                tx.push(&[7, i]).unwrap();
            }
        });
        let mut got = Vec::new();
        while rx.pop_run(7, 9, &mut got).unwrap().0 > 0 {}
        producer.join().unwrap();
        while rx.pop_run(7, 9, &mut got).unwrap().0 > 0 {}
        assert_eq!(got, [7, 1, 7, 2]);
    });
}

/// No wakeup is lost: if the consumer sleeps, the producer that `publish`es a frame is asked to wake it.
fn check_that_a_sleeping_consumer_is_woken(publish: fn(&mut Producer) -> Wakeup) {
    loom::model(move || {
        let (mut tx, mut rx) = in_process(16);
        let producer = thread::spawn(move || {
            tx.stage(b"x").unwrap();
            publish(&mut tx)
        });
        let armed = rx.arm(1).own;
        let wakeup = producer.join().unwrap();
        match armed {
            Arm::Sleep | Arm::WakeupPending => assert_eq!(wakeup, Wakeup::Needed),
            Arm::Ready => assert_eq!(wakeup, Wakeup::NotNeeded),
        }
        if armed != Arm::Sleep {
            assert!(!rx.is_empty().unwrap());
        }
    });
}

#[test]
fn loom_a_sleeping_consumer_is_woken() {
    check_that_a_sleeping_consumer_is_woken(Producer::publish);
}

/// The same if the producer looks for a sleeper after a fence that also serves another purpose.
#[test]
fn loom_a_sleeping_consumer_is_woken_after_a_shared_fence() {
    check_that_a_sleeping_consumer_is_woken(|tx| {
        tx.publish_quietly();
        loom::sync::atomic::fence(crate::sync::Ordering::SeqCst);
        tx.wakeup_after_fence()
    });
}

/// The same for a producer that waits for space.
#[test]
fn loom_a_sleeping_producer_is_woken() {
    loom::model(|| {
        let (mut tx, mut rx) = in_process(16);
        tx.push(&[1; 8]).unwrap();
        let consumer = thread::spawn(move || {
            let mut out = Vec::new();
            rx.pop(&mut out).unwrap().unwrap();
            rx.finish_read()
        });
        let armed = tx.arm(8).unwrap().own;
        let wakeup = consumer.join().unwrap();
        match armed {
            Arm::Sleep | Arm::WakeupPending => assert_eq!(wakeup, Wakeup::Needed),
            Arm::Ready => assert_eq!(wakeup, Wakeup::NotNeeded),
        }
        tx.push(&[2; 8]).unwrap();
    });
}

/// Checks both ends after each has armed: each wakeup that one end receives is one that the other end sends, and one of them
/// runs.
fn assert_one_runs(producer: Armed, consumer: Armed) {
    for (own, peer) in [(producer.own, consumer.peer), (consumer.own, producer.peer)] {
        match own {
            Arm::Sleep => {}
            Arm::Ready => assert_eq!(peer, Wakeup::NotNeeded),
            Arm::WakeupPending => assert_eq!(peer, Wakeup::Needed),
        }
    }
    let sleeps = |own, peer| own == Arm::Sleep && peer == Wakeup::NotNeeded;
    assert!(
        !(sleeps(producer.own, consumer.peer) && sleeps(consumer.own, producer.peer)),
        "both sleep: {producer:?}, {consumer:?}"
    );
}

/// A producer publishes what it has staged before it sleeps, also to a consumer that sleeps at the same time, and that waits
/// for more frames than there is room for.
#[test]
fn loom_ends_that_arm_with_staged_frames_do_not_both_sleep() {
    for awaited in [1, 2, 3] {
        loom::model(move || {
            let (mut tx, mut rx) = in_process(16);
            let producer = thread::spawn(move || {
                tx.stage(b"x").unwrap();
                tx.arm(8).unwrap()
            });
            let consumer = rx.arm(awaited);
            assert_one_runs(producer.join().unwrap(), consumer);
            assert!(!rx.is_empty().unwrap());
        });
    }
}

/// A consumer that has popped frames reports the space when it arms, even without `finish_read`: with the ring empty, and with a
/// frame left.
#[test]
fn loom_ends_that_arm_after_reads_do_not_both_sleep() {
    for (frames, len) in [(1, 8), (2, 1)] {
        loom::model(move || {
            let (mut tx, mut rx) = in_process(16);
            (0..frames).for_each(|_| tx.push(&[7; 8][..len]).unwrap());
            let consumer = thread::spawn(move || {
                rx.pop(&mut Vec::new()).unwrap().unwrap();
                rx.arm(2)
            });
            let producer = tx.arm(len).unwrap();
            assert_one_runs(producer, consumer.join().unwrap());
        });
    }
}

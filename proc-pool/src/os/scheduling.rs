//! The scheduling policy of a thread that sleeps.
#![allow(
    unsafe_code,
    reason = "reads and sets the scheduling policy of the calling thread"
)]

/// Runs `sleep`, in which this thread sleeps until another one wakes it. It then does not interrupt that thread, or any other, but waits
/// for a processor like a thread that was running.
///
/// A thread that has slept usually goes before one that runs, even before the one that has woken it. That is wrong for a worker whose
/// outputs the leader has yet to take: the leader would wait for the worker, and the other workers for the leader.
///
/// The policy is changed for the sleep only, and only from the usual one. Where that is forbidden, it does not change.
#[cfg(target_os = "linux")]
pub(crate) fn wake_without_preempting<R>(sleep: impl FnOnce() -> R) -> R {
    /// Restores the usual policy, also after a panic.
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            if self.0 {
                set_policy(libc::SCHED_OTHER);
            }
        }
    }

    let _restore = Restore(policy() == libc::SCHED_OTHER && set_policy(libc::SCHED_BATCH));
    sleep()
}

/// Runs `sleep`: this system has no such policy.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wake_without_preempting<R>(sleep: impl FnOnce() -> R) -> R {
    sleep()
}

/// Returns the policy of this thread, negative if it is unknown.
#[cfg(target_os = "linux")]
fn policy() -> std::ffi::c_int {
    // SAFETY: it reads a number of the calling thread, for which 0 stands.
    unsafe { libc::sched_getscheduler(0) }
}

/// Sets the policy of this thread to one that has no priorities. Returns whether it could.
#[cfg(target_os = "linux")]
fn set_policy(policy: std::ffi::c_int) -> bool {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live until it returns. It changes nothing but the policy of the calling thread, for which 0 stands.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_that_of_batches_for_the_sleep_only() {
        let before = policy();
        let asleep = wake_without_preempting(policy);
        if before == libc::SCHED_OTHER {
            assert_eq!(asleep, libc::SCHED_BATCH);
        }
        assert_eq!(policy(), before);
        let panicked = std::panic::catch_unwind(|| wake_without_preempting(|| panic!("expected")));
        assert!(panicked.is_err());
        assert_eq!(policy(), before);
    }

    #[test]
    fn another_policy_stays() {
        let in_thread = std::thread::spawn(|| {
            assert!(set_policy(libc::SCHED_IDLE));
            (wake_without_preempting(policy), policy())
        });
        let policies = in_thread.join().expect("it ends");
        assert_eq!(policies, (libc::SCHED_IDLE, libc::SCHED_IDLE));
    }
}

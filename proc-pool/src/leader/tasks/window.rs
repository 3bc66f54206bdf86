//! [`Window`]: how many tasks a worker has at a time. There should be enough that its ring never runs dry, and few enough that
//! other workers get their share.

use std::time::Duration;

/// Amount of work that should wait at a worker. The leader is woken when half of it is done. That half should take much longer than
/// a wakeup, which costs up to 0.1 ms, and much less than a person notices. Tasks that wait behind one that takes longer than
/// expected can be taken back.
const TARGET: Duration = Duration::from_millis(4);
/// For tasks this long, the gap between two of them does not matter, so one is enough.
const LONG: Duration = Duration::from_millis(50);
/// Maximum number of tasks. With tiny tasks, a worker must have enough for the time in which the leader takes outcomes and another worker
/// has the leader's processor: with 4,096 null ops it ran dry in each round, and a processor was idle for half of the time.
const MAX: usize = 16_384;

/// The window of one worker, computed from the times that it reports.
#[derive(Debug, Default)]
pub struct Window {
    /// Moving average of the time of one task, in nanoseconds; `None` before the first.
    task_ns: Option<f64>,
}

impl Window {
    /// Adds `tasks` tasks that took `busy_ns` nanoseconds together.
    pub fn observe(&mut self, tasks: u64, busy_ns: u64) {
        if tasks == 0 {
            return;
        }
        let now = busy_ns as f64 / tasks as f64;
        // A batch of many tasks is a better estimate than a single task.
        let weight = (tasks as f64 / 32.0).clamp(0.1, 0.9);
        self.task_ns = Some(self.task_ns.map_or(now, |old| old + (now - old) * weight));
    }

    /// Returns the maximum number of unanswered tasks.
    pub fn tasks(&self) -> usize {
        let Some(task_ns) = self.task_ns else { return 1 };
        if task_ns >= LONG.as_nanos() as f64 {
            return 1;
        }
        (TARGET.as_nanos() as f64 / task_ns.max(1.0)).clamp(2.0, MAX as f64) as usize
    }

    /// Returns whether `unanswered` tasks are far more than the maximum: they were sent when tasks were shorter.
    pub fn is_exceeded_by(&self, unanswered: usize) -> bool {
        unanswered > 2 * self.tasks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(tasks: u64, each: Duration) -> usize {
        let mut window = Window::default();
        window.observe(tasks, tasks * each.as_nanos() as u64);
        window.tasks()
    }

    #[test]
    fn window_is_larger_for_shorter_tasks() {
        assert_eq!(Window::default().tasks(), 1);
        assert_eq!(after(10, Duration::from_nanos(1)), MAX);
        assert_eq!(after(10, Duration::from_micros(5)), 800);
        assert_eq!(after(10, Duration::from_millis(1)), 4);
        assert_eq!(after(10, Duration::from_millis(10)), 2);
        assert_eq!(after(1, Duration::from_secs(1)), 1);
    }

    #[test]
    fn longer_tasks_exceed_the_window_that_was_filled_with_shorter_ones() {
        let mut window = Window::default();
        window.observe(1000, 1000 * 100);
        let sent = window.tasks();
        assert!(!window.is_exceeded_by(sent));
        for _ in 0..20 {
            window.observe(1, 100_000);
        }
        assert!(window.is_exceeded_by(sent) && !window.is_exceeded_by(window.tasks()));
    }

    #[test]
    fn window_follows_a_change_of_task_times() {
        let mut window = Window::default();
        window.observe(100, 100 * 1000);
        assert_eq!(window.tasks(), 4000);
        for _ in 0..100 {
            window.observe(1, 10_000_000);
        }
        assert_eq!(window.tasks(), 2);
        window.observe(0, 7);
        assert_eq!(window.tasks(), 2);
    }
}

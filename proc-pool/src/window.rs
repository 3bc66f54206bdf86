//! How many tasks may wait in a worker's ring: enough that it never runs dry, too few to hoard.

use std::time::Duration;

/// Work that should be waiting at a worker. The leader is woken for half of it: that should be far more than a wake-up
/// costs, which is up to 0.1 ms, and far less than a person notices. What waits behind a task that takes longer than
/// foreseen can be taken back.
const TARGET: Duration = Duration::from_millis(4);
/// Of tasks so long that the gap between two of them does not matter, one is enough.
const LONG: Duration = Duration::from_millis(50);
const MAX: usize = 4096;

/// The window of one worker, from what it tells of its time.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Moving average of one task's time, in nanoseconds; none before the first.
    task_ns: Option<f64>,
}

impl Window {
    /// `tasks` more tasks took `busy_ns` nanoseconds.
    pub(crate) fn observe(&mut self, tasks: u64, busy_ns: u64) {
        if tasks == 0 {
            return;
        }
        let now = busy_ns as f64 / tasks as f64;
        // A batch of many says more than a single task.
        let weight = (tasks as f64 / 32.0).clamp(0.1, 0.9);
        self.task_ns = Some(self.task_ns.map_or(now, |old| old + (now - old) * weight));
    }

    /// Tasks that may be outstanding.
    pub(crate) fn tasks(&self) -> usize {
        let Some(task_ns) = self.task_ns else { return 1 };
        if task_ns >= LONG.as_nanos() as f64 {
            return 1;
        }
        (TARGET.as_nanos() as f64 / task_ns.max(1.0)).clamp(2.0, MAX as f64) as usize
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
    fn tiny_tasks_travel_by_the_hundred_slow_ones_singly() {
        assert_eq!(Window::default().tasks(), 1);
        assert_eq!(after(10, Duration::from_nanos(1)), MAX);
        assert_eq!(after(10, Duration::from_micros(5)), 800);
        assert_eq!(after(10, Duration::from_millis(1)), 4);
        assert_eq!(after(10, Duration::from_millis(10)), 2);
        assert_eq!(after(1, Duration::from_secs(1)), 1);
    }

    #[test]
    fn follows_a_change() {
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

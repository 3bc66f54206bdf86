//! The processor time of one drawing of 100 bars, all of which have moved.
//!
//! A reporter draws ten times a second, so the baseline is one millisecond: a drawing that takes as long costs the
//! leader one percent of a core.
//!
//! Run it with `cargo bench -p progress --bench drawing`, or with `cargo xtask bench progress` for the comparison. It
//! needs the processor time of the process, and thus Unix.

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    unix::draw(&mut criterion);
    criterion.final_summary();
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Write};
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use criterion::{Criterion, SamplingMode};
    use progress::{Bar, Counters, Outcome, Render, Reporter, Total};
    use rustix::time::{ClockId, clock_gettime};

    const BARS: u16 = 100;

    pub(super) fn draw(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("draw");
        // An iteration takes 100 ms.
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        group.bench_function("100 bars", |bencher| bencher.iter_custom(draw_bars));
        group.bench_function("one percent of a core", |bencher| {
            bencher.iter(|| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(1) {}
            });
        });
        group.finish();
    }

    /// Returns the processor time of this process during `drawings` drawings.
    fn draw_bars(drawings: u64) -> Duration {
        let (send, drawn) = channel();
        let reporter = Reporter::builder()
            .render(Render::Bar)
            .output(NullOutput(send))
            .columns(120)
            .rows(BARS)
            .start()
            .expect("the feature `indicatif` is on by default");
        let bars: Vec<(Bar, Counters)> = (0..BARS)
            .map(|n| {
                let bar = reporter.bar(format!("bar {n}"), Total::Known(1_000_000));
                let counters = bar.counters();
                (bar, counters)
            })
            .collect();
        let count_and_wait = || {
            for (n, (_, counters)) in (1..).zip(&bars) {
                counters.counter(Outcome::Done).add(7 * n);
            }
            drawn.recv().expect("the reporter draws");
        };
        // The first drawing also starts the thread that writes.
        count_and_wait();
        let before = processor_time();
        (0..drawings).for_each(|_| count_and_wait());
        processor_time().saturating_sub(before)
    }

    /// An output that discards drawings and reports each write.
    struct NullOutput(Sender<()>);

    impl Write for NullOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // After the last measured drawing, nothing receives.
            let _ = self.0.send(());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn processor_time() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::try_from(time).expect("processor time is not negative")
    }
}

#[cfg(not(unix))]
mod unix {
    pub(super) fn draw(_: &mut criterion::Criterion) {
        println!("not measured: this benchmark needs Unix");
    }
}

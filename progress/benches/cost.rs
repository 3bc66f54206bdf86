//! What counting costs the worker, and what drawing costs the leader.
//!
//! Counting is compared with the least that it can be, a relaxed load and a relaxed store in a slot that one thread
//! owns, and with what others do: an atomic addition, and indicatif's own `inc`, hidden and drawn. Rounds of all of
//! them alternate, and the median of the rounds counts. Drawing is the processor time of a leader that shows bars ten
//! times a second, less that of one that shows none.

use std::fmt;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
use progress::{Bar, Counters, Outcome, Render, Reporter, Total};
use serde_json::{Value, json};

/// `inc` over load and store.
const INC: f64 = 3.0;
/// Of one core, in percent, for this many bars.
const DRAWING: f64 = 1.0;
const BARS: u64 = 100;

fn main() -> ExitCode {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let counting = counting(if quick { 5 } else { 31 });
    for row in &counting {
        println!("{row}");
    }
    let of = |name: &str| counting.iter().find(|row| row.name == name);
    let inc_over = |name: &str| {
        let (inc, other) = (of(INC_NAME)?, of(name)?);
        let mut ratios: Vec<f64> = inc.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect();
        Some(median_and_spread(&mut ratios))
    };
    let drawing = drawing(if quick {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(5)
    });
    println!("\n{:44} {:>10} {:>10}  verdict", "", "target", "measured");
    let mut verdict = ExitCode::SUCCESS;
    let mut judge = |what: &str, target: f64, measured: Option<(f64, [f64; 2])>, unit: &str| {
        record(&json!({
            "table": "Progress", "row": what, "ratio": measured.map(|(median, _)| median),
            "spread": measured.map(|(_, spread)| spread), "target": format!("<= {target}{}", unit.trim_matches('x')),
            "met": measured.map(|(median, _)| median <= target),
        }));
        let measured = measured.map(|(median, _)| median);
        let (shown, word) = match measured {
            None => ("-".to_owned(), "not measured here"),
            Some(value) if value <= target => (format!("{value:.2}{unit}"), "met"),
            Some(value) => {
                verdict = ExitCode::FAILURE;
                (format!("{value:.2}{unit}"), "MISSED")
            }
        };
        println!(
            "{what:44} {:>10} {shown:>10}  {word}",
            format!("<= {target}{unit}")
        );
    };
    judge("inc, of a load and a store", INC, inc_over("load and store"), "x");
    judge(
        "inc, of an atomic addition",
        1.0,
        inc_over("atomic addition"),
        "x",
    );
    judge(
        "inc, of indicatif's, hidden",
        1.0,
        inc_over("indicatif inc, hidden"),
        "x",
    );
    let share = drawing.map(|drawing| (drawing.share, [drawing.share; 2]));
    judge("drawing 100 bars, of one core", DRAWING, share, " %");
    if let Some(drawing) = drawing {
        println!("\n{drawing}");
    }
    match quick {
        // A smoke run on a busy machine proves nothing about speed.
        true => ExitCode::SUCCESS,
        false => verdict,
    }
}

const INC_NAME: &str = "inc of a counter";

/// What one count costs.
struct Cost {
    name: &'static str,
    nanos: f64,
    floor: f64,
    rounds: Vec<f64>,
}

/// Sorts the rounds.
fn median_and_spread(rounds: &mut [f64]) -> (f64, [f64; 2]) {
    rounds.sort_by(f64::total_cmp);
    (rounds[rounds.len() / 2], [rounds[0], rounds[rounds.len() - 1]])
}

/// Appends a row or a point of a plot to the file that `cargo xtask bench --out` names.
fn record(line: &Value) {
    if let Some(path) = std::env::var_os("BENCH_ROWS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of rows can be written");
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.nanos / self.floor;
        write!(f, "{:44} {:8.2} ns  {ratio:7.2}x", self.name, self.nanos)
    }
}

/// Nanoseconds for each of `n` calls.
fn time(n: u64, mut count: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..n {
        count();
    }
    begun.elapsed().as_nanos() as f64 / n as f64
}

fn counting(rounds: usize) -> Vec<Cost> {
    const CHEAP: u64 = 4_000_000;
    const DEAR: u64 = 100_000;
    let slot = AtomicU64::new(0);
    let shared = AtomicU64::new(0);
    let counters = Counters::in_process();
    let done = counters.counter(Outcome::Done);
    let hidden = ProgressBar::with_draw_target(Some(u64::MAX), ProgressDrawTarget::hidden());
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(Nowhere), 20);
    let drawn = ProgressBar::with_draw_target(Some(u64::MAX), target);
    let steps = Counters::in_process();
    let mut step = 0;
    let mut measure: [(&str, &mut dyn FnMut() -> f64); 7] = [
        ("load and store", &mut || {
            time(CHEAP, || {
                let slot = black_box(&slot);
                slot.store(slot.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            })
        }),
        (INC_NAME, &mut || time(CHEAP, || black_box(done).inc())),
        ("inc, the counter looked up each time", &mut || {
            time(CHEAP, || black_box(&counters).counter(Outcome::Done).inc())
        }),
        ("step within a task", &mut || {
            time(CHEAP, || {
                step += 1;
                black_box(&steps).step(step, Total::Known(1 << 40));
            })
        }),
        ("atomic addition", &mut || {
            time(CHEAP, || {
                black_box(&shared).fetch_add(1, Ordering::Relaxed);
            })
        }),
        ("indicatif inc, hidden", &mut || {
            time(DEAR, || black_box(&hidden).inc(1))
        }),
        ("indicatif inc, drawn 20 times a second", &mut || {
            time(DEAR, || black_box(&drawn).inc(1))
        }),
    ];
    let mut nanos = vec![Vec::with_capacity(rounds); measure.len()];
    for _ in 0..rounds {
        for ((_, measure), nanos) in measure.iter_mut().zip(&mut nanos) {
            nanos.push(measure());
        }
    }
    let medians: Vec<f64> = nanos
        .iter()
        .map(|nanos| median_and_spread(&mut nanos.clone()).0)
        .collect();
    let named = measure
        .iter()
        .map(|(name, _)| *name)
        .zip(medians.iter().zip(nanos));
    named
        .map(|(name, (nanos, rounds))| Cost {
            name,
            nanos: *nanos,
            floor: medians[0],
            rounds,
        })
        .collect()
}

/// A terminal that forgets.
#[derive(Debug)]
struct Nowhere;

impl TermLike for Nowhere {
    fn width(&self) -> u16 {
        120
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn write_str(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What drawing took.
#[derive(Clone, Copy)]
struct Drawing {
    /// Percent of one core.
    share: f64,
    per_second: f64,
    bytes: f64,
}

impl fmt::Display for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.share / 100.0 / self.per_second * 1e6;
        write!(
            f,
            "{BARS} bars that all move, on a terminal of {BARS} rows: {:.1} drawings a second of {:.0} µs and {:.1} KiB",
            self.per_second,
            micros,
            self.bytes / 1024.0
        )
    }
}

/// Counts what is drawn.
#[derive(Debug, Clone, Default)]
struct Meter {
    writes: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drawing(long: Duration) -> Option<Drawing> {
    let meter = Meter::default();
    let without = show(Render::None, long, &meter)?;
    let with = show(Render::Bar, long, &meter)?;
    let writes = meter.writes.load(Ordering::Relaxed) as f64;
    Some(Drawing {
        share: with.saturating_sub(without).as_secs_f64() / long.as_secs_f64() * 100.0,
        per_second: writes / long.as_secs_f64(),
        bytes: meter.bytes.load(Ordering::Relaxed) as f64 / writes,
    })
}

/// The processor time of this process while it shows bars that all move between two drawings.
fn show(render: Render, long: Duration, meter: &Meter) -> Option<Duration> {
    let begun = Instant::now();
    let before = processor_time()?;
    let reporter = Reporter::builder()
        .render(render)
        .output(meter.clone())
        .columns(120)
        .rows(BARS as u16)
        .start()
        .expect("bars are built in");
    let bars: Vec<(Bar, Counters)> = (0..BARS)
        .map(|n| {
            let bar = reporter.bar(format!("bar {n}"), Total::Known(1_000_000));
            let counters = bar.counters();
            (bar, counters)
        })
        .collect();
    while begun.elapsed() < long {
        for (n, (_, counters)) in (1..).zip(&bars) {
            counters.counter(Outcome::Done).add(7 * n);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(reporter);
    Some(processor_time()?.saturating_sub(before))
}

#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}

//! The examples of the guide's chapter on progress, as programs with and without a terminal.

use std::error::Error;

use super::bars::{LONG, Screen, command, run, status};

/// Runs the example of this name, in a child of these tests.
pub(crate) fn run_example(scenario: &str) -> Option<Result<(), Box<dyn Error>>> {
    Some(match scenario {
        "within a task" => within_a_task(),
        "logs above the bar" => logs_above_the_bar(),
        "panics and other writers" => panics_and_other_writers(),
        _ => return None,
    })
}

fn within_a_task() -> Result<(), Box<dyn Error>> {
    // example
    use invoker::{Executor, Invoker, Total, step};

    fn slow(_: &(), rounds: u64) -> u64 {
        for round in 0..rounds {
            step(round, Total::Known(rounds));
            // ... a round of work ...
        }
        rounds
    }

    let builder = Invoker::builder(slow).model(()).executor(Executor::Threads);
    let invoker = builder.progress("slow").build()?;
    assert_eq!(invoker.map([3, 4]).sum::<Result<u64, _>>()?, 7);
    invoker.finish()?;
    // end
    Ok(())
}

#[rustfmt::skip]
fn logs_above_the_bar() -> Result<(), Box<dyn Error>> {
    // example
    use std::sync::Arc;
    use invoker::{Executor, Invoker, Reporter};

    let reporter = Arc::new(Reporter::builder().start()?);
    let subscriber = tracing_subscriber::fmt().with_writer(reporter.writer()).finish();
    tracing::subscriber::with_default(subscriber, || -> Result<(), Box<dyn std::error::Error>> {
        let builder = Invoker::builder(|_: &(), n: u32| n).model(());
        let builder = builder.executor(Executor::Threads).progress_by(reporter.clone(), "count");
        let invoker = builder.build()?;
        for output in invoker.map(0..100) {
            if output? == 50 {
                tracing::info!("half of it");
            }
        }
        invoker.finish()?;
        Ok(())
    })?;
    // end
    Ok(())
}

#[rustfmt::skip]
fn panics_and_other_writers() -> Result<(), Box<dyn Error>> {
    // example
    use std::sync::Arc;
    use invoker::{Executor, Invoker, Reporter};

    let reporter = Arc::new(Reporter::builder().start()?);
    reporter.install_panic_hook();
    let builder = Invoker::builder(|_: &(), n: u32| n).model(());
    let builder = builder.executor(Executor::Threads).progress_by(reporter.clone(), "count");
    let invoker = builder.build()?;
    for output in invoker.map(0..100) {
        if output? == 50 {
            reporter.suspend(|| println!("half of it"));
        }
    }
    invoker.finish()?;
    // end
    Ok(())
}

#[test]
fn the_examples_are_those_of_the_guide() {
    let _watchdog = crate::watchdog::watchdog(120);
    let guide = include_str!("../../guide/progress.md");
    let guide = guide.split("```").skip(1).step_by(2).map(|block| {
        let shown = block.lines().filter(|line| !line.starts_with("# "));
        shown.collect::<Vec<_>>().join("\n").trim().to_owned()
    });
    let here = include_str!("guide_of_progress.rs");
    let here = here.split("    // example\n").skip(1).filter_map(|rest| {
        let (example, _) = rest.split_once("    // end\n")?;
        let lines = example
            .lines()
            .map(|line| line.strip_prefix("    ").unwrap_or(line));
        Some(lines.collect::<Vec<_>>().join("\n").trim().to_owned())
    });
    // The last match is the code above.
    let here: Vec<String> = here.take(3).collect();
    assert_eq!(guide.collect::<Vec<_>>(), here);
}

/// The output of each example: a line on standard output, a log line, and the last line of its bar.
const EXAMPLES: [(&str, &str, &str, &str); 3] = [
    ("within a task", "", "", "slow"),
    ("logs above the bar", "", "half of it", "count"),
    ("panics and other writers", "half of it", "", "count"),
];

#[test]
fn examples_show_bars_on_a_terminal() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (example, _, log, bar) in EXAMPLES {
        let screen = Screen::of(command(example), LONG);
        assert_eq!(screen.status, status(0), "{example}: {screen:?}");
        let last = screen.rows.last().expect("rows");
        assert!(
            last.starts_with(&format!("{bar}  █")) && last.contains(" (100 %), "),
            "{example}: {screen:?}"
        );
        assert!(last.contains("took"), "{example}: {screen:?}");
        assert_eq!(
            screen.rows.len(),
            1 + usize::from(!log.is_empty()),
            "{example}: {screen:?}"
        );
        assert!(
            screen.rows[0].ends_with(log) || log.is_empty(),
            "{example}: {screen:?}"
        );
    }
}

#[test]
fn examples_print_lines_without_a_terminal() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (example, printed, log, bar) in EXAMPLES {
        let output = run(command(example));
        assert!(output.status.success(), "{example}: {output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(printed), "{example}: {stdout}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !stderr.contains('\u{1b}') || !log.is_empty(),
            "{example}: {stderr:?}"
        );
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(
            lines.len(),
            1 + usize::from(!log.is_empty()),
            "{example}: {stderr}"
        );
        let last = lines.last().expect("a line");
        assert!(
            last.starts_with(&format!("{bar}: ")) && last.contains("(100 %)"),
            "{example}: {last}"
        );
    }
}

//! `cargo xtask bench`: runs the registered benchmarks, in release, one after the other, in passes over all of them.
//!
//! A benchmark is a target of a package (`catalog` lists them), so this tool stays independent of what is measured.
//! Where nothing is registered it says so and fails: a bench that measures nothing must not look like one that passed.

mod baseline;
mod catalog;
mod criterion;
mod machine;
mod options;
mod passes;
mod peers;
mod plot;
mod programs;
mod report;
mod rows;

use std::fs;
use std::time::Instant;

use catalog::{Area, Scenario, Target};
use options::{Effort, Request};
use programs::Programs;
use rows::Run;

use crate::outcome::Error;
use crate::workspace::Workspace;

const USAGE: &str = "\
Usage: cargo xtask bench [AREA...] [--quick] [--bytes N] [--out DIR] [--baseline FILE] [--list]

Runs the benchmarks of the areas, or of all of them; `peers` (pools of Python, in an environment that it makes) only if
asked for.

  --quick          a smoke run of one pass: does it work, not how fast is it
  --bytes N        size of the model, where one is shared (64MiB, 1GiB ... or plain bytes)
  --out DIR        also writes bench.json, and bench.md with tables and plots
  --baseline FILE  compares with the bench.json of another run; a regression is exit status 1
  --list           what is registered
";

pub(crate) fn main(args: lexopt::Parser) -> Result<(), Error> {
    match options::parse(args)? {
        Request::Help => print!("{USAGE}"),
        Request::List => print!("{}", list(catalog::AREAS)),
        Request::Run(request) => run(&request)?,
    }
    Ok(())
}

/// The area that is not of this workspace.
const PEERS: &str = "peers";

fn run(request: &options::Run) -> Result<(), Error> {
    // Before anything is measured: it takes minutes.
    let baseline = request.baseline.as_deref().map(Run::load).transpose()?;
    // Not one of all areas: it downloads, and takes its time.
    let areas: Vec<String> = request
        .areas
        .iter()
        .filter(|area| *area != PEERS)
        .cloned()
        .collect();
    let with_peers = areas.len() < request.areas.len();
    let scenarios = match with_peers && areas.is_empty() {
        true => Vec::new(),
        false => select(catalog::AREAS, &areas)?,
    };
    let workspace = Workspace::load()?;
    let mut run = Run {
        machine: machine::describe(&settings(request)),
        ..Run::default()
    };
    if !scenarios.is_empty() {
        let programs = Programs::build(&scenarios)?;
        let begun = Instant::now();
        let count = passes::count(request.options.effort);
        let mut all = Vec::new();
        for number in 1..=count {
            println!("\n== pass {number} of {count}");
            all.push(pass(&scenarios, &programs, &request.options, &workspace)?);
        }
        run = Run {
            machine: run.machine,
            ..passes::merge(&all)
        };
        println!("\nmeasured in {:.0} s", begun.elapsed().as_secs_f64());
    }
    if with_peers {
        println!("\n== peers: pools of Python with the same tasks");
        peers::measure(&request.options, &mut run)?;
    }
    let load = machine::load().map(|load| ("load at the end".to_owned(), load));
    run.machine.extend(load);
    if let Some(dir) = &request.out {
        report::write(&run, dir)?;
    }
    match baseline {
        Some(baseline) => against(&baseline, &run),
        None => Ok(()),
    }
}

/// All scenarios, once.
fn pass(
    scenarios: &[&Scenario],
    programs: &Programs,
    options: &options::Options,
    workspace: &Workspace,
) -> Result<Run, Error> {
    let mut pass = Run::default();
    for scenario in scenarios {
        println!("\n== {}: {}", scenario.name, scenario.about);
        pass.add_lines(&measured(scenario, programs, options, workspace)?)?;
    }
    Ok(pass)
}

/// The lines that a scenario has to tell.
fn measured(
    scenario: &Scenario,
    programs: &Programs,
    options: &options::Options,
    workspace: &Workspace,
) -> Result<String, Error> {
    let rows = workspace.target.join("bench-rows.jsonl");
    let home = programs::criterion_home(&workspace.target);
    // What another pass left is not to be taken for this one's.
    let _ = fs::remove_file(&rows);
    criterion::forget(&home)?;
    let command = programs.command(scenario, options, workspace)?;
    command.env(rows::ROWS, &rows).run()?;
    // None, if it told nothing.
    let mut lines = fs::read_to_string(&rows).unwrap_or_default();
    if let Target::Criterion(_, table, comparisons) = scenario.target {
        for row in criterion::rows(&home, table, comparisons)? {
            lines += &format!("{row}\n");
        }
    }
    Ok(lines)
}

/// Tells what changed; a regression is an error.
fn against(baseline: &Run, run: &Run) -> Result<(), Error> {
    let comparison = baseline::compare(baseline, run);
    println!("\nagainst the baseline, {comparison}");
    match comparison
        .changes
        .iter()
        .filter(|change| change.is_regression())
        .count()
    {
        0 => Ok(()),
        worse => Err(Error::failed(format!(
            "{worse} rows are worse than in the baseline"
        ))),
    }
}

fn settings(request: &options::Run) -> String {
    let areas = match request.areas.as_slice() {
        [] => "all areas".to_owned(),
        areas => areas.join(", "),
    };
    let effort = match request.options.effort {
        Effort::Full => format!("full, {} passes", passes::count(Effort::Full)),
        Effort::Quick => "quick".to_owned(),
    };
    match request.options.bytes {
        Some(bytes) => format!("{areas}, {effort}, models of {} MiB", bytes >> 20),
        None => format!("{areas}, {effort}"),
    }
}

fn list(areas: &[Area]) -> String {
    let mut text = String::new();
    for area in areas {
        text += &format!("{:8} {}\n", area.name, area.about);
        if area.scenarios.is_empty() {
            text += "           (nothing registered yet)\n";
        }
        for scenario in area.scenarios {
            text += &format!("  {:16} {}\n", scenario.name, scenario.about);
        }
    }
    text
}

/// The scenarios of the named areas, or of all if none is named.
fn select<'a>(areas: &'a [Area], names: &[String]) -> Result<Vec<&'a Scenario>, Error> {
    let mut selected = Vec::new();
    for name in names {
        let area = areas.iter().find(|area| area.name == name).ok_or_else(|| {
            let known: Vec<_> = areas.iter().map(|area| area.name).collect();
            Error::usage(format!("unknown area `{name}`; there are {}", known.join(", ")))
        })?;
        if area.scenarios.is_empty() {
            return Err(Error::usage(format!(
                "no benchmark is registered for `{name}` yet; nothing was measured"
            )));
        }
        selected.extend(area.scenarios);
    }
    if names.is_empty() {
        selected.extend(areas.iter().flat_map(|area| area.scenarios));
    }
    if selected.is_empty() {
        return Err(Error::usage(
            "no benchmark is registered yet; nothing was measured",
        ));
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: Scenario = Scenario {
        name: "copy",
        about: "share a model",
        package: "shm-buffers",
        target: Target::Bench("copy"),
    };
    const AREAS: &[Area] = &[
        Area {
            name: "shm",
            about: "memory",
            scenarios: &[COPY],
        },
        Area {
            name: "pool",
            about: "dispatch",
            scenarios: &[],
        },
    ];

    fn names(areas: &[&str]) -> Result<Vec<&'static str>, Error> {
        let areas: Vec<String> = areas.iter().map(|&name| name.to_owned()).collect();
        select(AREAS, &areas).map(|scenarios| scenarios.iter().map(|scenario| scenario.name).collect())
    }

    #[test]
    fn areas_select_their_scenarios() {
        assert_eq!(names(&["shm"]).expect("shm has one"), ["copy"]);
        assert_eq!(names(&[]).expect("all areas"), ["copy"]);
    }

    #[test]
    fn nothing_registered_is_never_a_success() {
        for (areas, what) in [
            (&["pool"][..], "nothing was measured"),
            (&["shm", "pool"], "nothing"),
            (&["x"], "`x`"),
        ] {
            let error = names(areas).expect_err("pretended to run");
            assert!(
                matches!(&error, Error::Usage(message) if message.contains(what)),
                "{areas:?}: {error}"
            );
        }
        assert!(matches!(select(&[], &[]), Err(Error::Usage(_))));
    }

    #[test]
    fn the_list_tells_what_is_missing() {
        assert_eq!(
            list(AREAS),
            "shm      memory\n  copy             share a model\npool     dispatch\n           (nothing registered yet)\n"
        );
    }
}

//! `cargo xtask bench`: runs the registered benchmarks in release mode, one after the other, in passes over all of them.
//!
//! A benchmark is a target of a package (`catalog` lists them), so this tool stays independent of what is measured.

#[cfg(test)]
mod arguments;
mod baseline;
mod catalog;
mod criterion;
mod iceoryx2;
mod machine;
mod passes;
mod peers;
mod plot;
mod programs;
mod report;
mod rows;

use std::fs;
use std::path::{self, Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use bytesize::ByteSize;
use clap::builder::PossibleValuesParser;

use catalog::{CATALOG, Scenario};
use programs::Programs;
use rows::Run;

use crate::workspace::{self, Workspace};
use crate::{NotRun, cluster};

/// Run the benchmarks of areas, by default of all but `peers`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_name = "AREA", value_parser = PossibleValuesParser::new(CATALOG.areas.iter().map(|area| &*area.0)))]
    areas: Vec<String>,
    /// A smoke run of one pass: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Size of the shared models, such as 1000000, 64MiB or 1GiB
    #[arg(long, value_name = "N")]
    bytes: Option<ByteSize>,
    /// How often `peers` measures what differs most, by default 3 times
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Measure `peers` without this workspace's programs: only pools of Python, `invokerpool` among them
    #[arg(long)]
    python_only: bool,
    /// Directory for bench.json, and bench.md with tables and plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The bench.json of another run to compare with; a regression is exit status 1
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Also measure a peer that takes minutes to build
    #[arg(long, value_name = "PEER", value_parser = [iceoryx2::NAME])]
    with: Option<String>,
    /// List the benchmarks
    #[arg(long)]
    list: bool,
}

/// How often all scenarios of a full run are measured, one after the other.
const PASSES: usize = 3;

impl Args {
    /// Whether an area was asked for. `peers` must be named, because it downloads packages and takes long.
    fn includes(&self, area: &str) -> bool {
        self.areas.iter().any(|it| it == area) || (self.areas.is_empty() && area != peers::AREA)
    }

    /// Returns the arguments of a benchmark.
    fn to_benchmark(&self) -> Vec<String> {
        let mut args = Vec::new();
        args.extend(self.quick.then(|| "--quick".to_owned()));
        if let Some(bytes) = self.bytes {
            args.extend(["--bytes".to_owned(), bytes.as_u64().to_string()]);
        }
        args
    }

    fn describe(&self) -> String {
        let areas = match self.areas.as_slice() {
            [] => "all areas".to_owned(),
            areas => areas.join(", "),
        };
        let effort = if self.quick { "quick" } else { "full, 3 passes" };
        let bytes = self.bytes.map(|bytes| format!(", models of {bytes}"));
        format!("{areas}, {effort}{}", bytes.unwrap_or_default())
    }
}

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    if args.list {
        print!("{}", CATALOG.list());
        return Ok(());
    }
    // Read before the measurement, which takes minutes.
    let baseline = args.baseline.as_deref().map(Run::load).transpose()?;
    let mut machine = machine::describe(&workspace.sh, &args.describe());
    let mut run = measure(args, workspace)?;
    machine.extend(machine::load().map(|load| ("load at the end".to_owned(), load)));
    run.machine = machine;
    if let Some(dir) = &args.out {
        // The shell is in the workspace's root.
        report::write(&run, &workspace.sh, &path::absolute(dir)?)?;
    }
    let Some(baseline) = baseline else {
        return Ok(());
    };
    let comparison = baseline::compare(&baseline, &run);
    println!("\nagainst the baseline, {comparison}");
    let worse = comparison.regressions();
    ensure!(worse == 0, "{worse} rows are worse than in the baseline");
    Ok(())
}

fn measure(args: &Args, workspace: &Workspace) -> Result<Run> {
    let is_chosen = |scenario: &&Scenario| args.includes(&scenario.area);
    let scenarios: Vec<&Scenario> = CATALOG.scenarios.iter().filter(is_chosen).collect();
    let mut run = Run::default();
    if args.with.is_some() {
        // The benchmarks inherit the variable.
        workspace
            .sh
            .set_var(iceoryx2::PROGRAM, iceoryx2::build(workspace)?);
    }
    if scenarios.iter().any(|it| it.area == cluster::AREA)
        && std::env::var_os(cluster::SERVER_VARIABLE).is_none()
    {
        match cluster::install(workspace) {
            Ok(server) => workspace.sh.set_var(cluster::SERVER_VARIABLE, server),
            // The benchmark says so, too.
            Err(error) if error.is::<NotRun>() && args.areas.is_empty() => eprintln!("skipped: {error}"),
            Err(error) => return Err(error),
        }
    }
    if !scenarios.is_empty() {
        let targets = scenarios.iter().map(|it| (&*it.package, &*it.bench));
        let programs = Programs::build(workspace, targets)?;
        let start = Instant::now();
        let count = if args.quick { 1 } else { PASSES };
        let mut all = Vec::new();
        for number in 1..=count {
            println!("\n== pass {number} of {count}");
            let mut pass = Run::default();
            for scenario in &scenarios {
                println!("\n== {}: {}", scenario.bench, scenario.about);
                pass.extend(scenario_rows(scenario, &programs, args, workspace)?);
            }
            all.push(pass);
        }
        run = passes::merge(&all);
        println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    }
    if args.includes(peers::AREA) {
        println!("\n== peers: pools of Python with the same tasks");
        run.extend(peers::measure(args, workspace)?);
    }
    Ok(run)
}

/// Runs a scenario once.
fn scenario_rows(
    scenario: &Scenario,
    programs: &Programs,
    args: &Args,
    workspace: &Workspace,
) -> Result<Run> {
    let sh = &workspace.sh;
    // Not where `cargo bench` lets criterion write: contributors keep baselines there.
    let criterion = workspace.target.join("bench-criterion");
    // Another pass must not be taken for this one.
    sh.remove_path(&criterion)?;
    let _dir = sh.push_dir(workspace::dir(workspace.member(&scenario.package)?));
    let program = sh.cmd(programs.path(&scenario.bench)?).arg("--bench");
    let program = program.env(criterion::HOME, &criterion);
    let program = match scenario.comparisons.is_empty() {
        true => program.args(args.to_benchmark()),
        false => program.args(criterion::args(args.quick)),
    };
    let mut run = reported_rows(&workspace.target, program)?;
    for comparison in &scenario.comparisons {
        let row = criterion::row(&criterion, &scenario.table, comparison);
        run.rows.push(row?);
    }
    Ok(run)
}

/// Runs a program and returns the rows that it reports.
fn reported_rows(target: &Path, program: xshell::Cmd<'_>) -> Result<Run> {
    let path = target.join("bench-rows.jsonl");
    let _ = fs::remove_file(&path);
    program.env(rows::ROWS, &path).run()?;
    // The file is missing if the program has nothing to report.
    Run::parse_lines(&fs::read_to_string(&path).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verb;
    use crate::tests::parsed;

    #[test]
    fn options_reach_the_benchmark() {
        let Ok(Verb::Bench(args)) = parsed("bench --quick --bytes 64MiB") else {
            panic!("right usage was refused");
        };
        assert_eq!(args.to_benchmark(), ["--quick", "--bytes", "67108864"]);
        assert_eq!(args.describe(), "all areas, quick, models of 64.0 MiB");
        assert!(args.includes("shm") && !args.includes(peers::AREA));
        assert!(parsed("bench --bytes many").is_err());
        assert!(parsed("bench pool --with iceoryx2").is_ok() && parsed("bench --with none").is_err());
    }
}

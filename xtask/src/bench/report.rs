//! The files of a run: `bench.json`, and `bench.md` with its plots.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use xshell::Shell;

use super::plot;
use super::rows::{Point, Row, Run};

/// Writes all files of a run into `dir`, and creates it if needed.
pub(super) fn write(run: &Run, sh: &Shell, dir: &Path) -> Result<()> {
    sh.write_file(dir.join("bench.json"), serde_json::to_string_pretty(run)? + "\n")?;
    let plots = plots(run);
    for (index, points) in plots.iter().enumerate() {
        sh.write_file(dir.join(plot_file(index)), plot::svg(points))?;
    }
    sh.write_file(dir.join("bench.md"), markdown(run, &plots))?;
    let (count, dir) = (plots.len(), dir.display());
    println!("\nwrote bench.json, bench.md and {count} plots to {dir}");
    Ok(())
}

fn plot_file(index: usize) -> String {
    format!("plot-{}.svg", index + 1)
}

/// Returns the points of each plot, and of each unit, because units share no axis.
fn plots(run: &Run) -> Vec<Vec<&Point>> {
    let mut plots: Vec<Vec<&Point>> = Vec::new();
    for point in &run.points {
        let is_same = |plot: &&mut Vec<&Point>| (&plot[0].plot, &plot[0].unit) == (&point.plot, &point.unit);
        match plots.iter_mut().find(is_same) {
            Some(plot) => plot.push(point),
            None => plots.push(vec![point]),
        }
    }
    plots
}

fn markdown(run: &Run, plots: &[Vec<&Point>]) -> String {
    let mut text = String::from("# Benchmarks\n\n| machine and settings | |\n|---|---|\n");
    for (name, value) in &run.machine {
        let _ = writeln!(text, "| {} | {} |", cell(name), cell(value));
    }
    let met = |wanted| run.rows.iter().filter(|row| row.met == Some(wanted)).count();
    let _ = writeln!(
        text,
        "\n{} targets met, {} missed.\n\n\
         A ratio is made against a floor or a peer that took turns with what is measured, in the same pass; it is the median of\n\
         the passes over all benchmarks, with the smallest and the largest of all their rounds in brackets.",
        met(true),
        met(false)
    );
    let mut tables: Vec<&str> = Vec::new();
    for row in &run.rows {
        if !tables.contains(&row.table.as_str()) {
            tables.push(&row.table);
        }
    }
    for table in tables {
        let head = "| | measured | floor or peer | ratio | target | verdict |\n|---|---|---|---|---|---|";
        let _ = writeln!(text, "\n## {table}\n\n{head}");
        let rows = run.rows.iter().filter(|row| row.table == table);
        rows.for_each(|row| text += &line(row));
    }
    for (index, points) in plots.iter().enumerate() {
        let (Point { plot, unit, .. }, file) = (points[0], plot_file(index));
        let _ = writeln!(text, "\n![{plot}, {unit}]({file})");
    }
    text
}

fn line(row: &Row) -> String {
    let ratio = match (row.ratio, row.spread) {
        (Some(ratio), Some((low, high))) if low < high => {
            format!("{}x [{} .. {}]", digits(ratio), digits(low), digits(high))
        }
        (Some(ratio), _) => format!("{}x", digits(ratio)),
        (None, _) => String::new(),
    };
    let verdict = match row.met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    let (name, measured) = (cell(&row.name), cell(&row.measured));
    let against = cell(format!("{} {}", row.peer, row.floor).trim());
    let target = row.target.as_deref().unwrap_or_default();
    format!("| {name} | {measured} | {against} | {ratio} | {target} | {verdict} |\n")
}

fn digits(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Escapes text that would end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"table":"Null op","row":"un|ordered","measured":"12.0 M/s","peer":"rayon","floor":"60.0 M/s","ratio":0.2,"spread":[0.18,0.21],"target":">= 0.3","met":false}
{"plot":"Null op","series":"tasks","unit":"tasks/s","x":1,"y":1e6}
{"plot":"Null op","series":"leader","unit":"ns/task","x":1,"y":80}
{"plot":"Null op","series":"tasks","unit":"tasks/s","x":2,"y":2e6}
"#;

    #[test]
    fn report_shows_missed_targets_and_every_plot() {
        let sh = Shell::new().expect("a shell");
        let dir = sh.create_temp_dir().expect("a temporary directory");
        let mut run = Run::parse_lines(LINES).expect("good lines");
        run.machine.push(("cores".into(), "2".into()));
        write(&run, &sh, dir.path()).expect("the directory is writable");
        let loaded = Run::load(&dir.path().join("bench.json"));
        assert_eq!(loaded.expect("it was written"), run);
        let read = |name: &str| sh.read_file(dir.path().join(name)).expect("it was written");
        let text = read("bench.md");
        let row =
            "| un\\|ordered | 12.0 M/s | rayon 60.0 M/s | 0.200x [0.180 .. 0.210] | >= 0.3 | **missed** |";
        assert!(text.contains(row) && text.contains("| cores | 2 |"), "{text}");
        assert!(text.contains("0 targets met, 1 missed"), "{text}");
        assert!(text.contains("![Null op, ns/task](plot-2.svg)"), "{text}");
        assert!(read("plot-1.svg").contains("polyline") && read("plot-2.svg").contains("ns/task"));
    }
}

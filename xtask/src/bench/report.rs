//! What a run is told as: `bench.json`, and `bench.md` with its plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::plot;
use super::rows::{Point, Row, Run};
use crate::outcome::Error;

/// Writes all files of a run into a directory, which is made if it is missing.
pub(super) fn write(run: &Run, dir: &Path) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text)
            .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))
    };
    fs::create_dir_all(dir)
        .map_err(|error| Error::failed(format!("cannot make {}: {error}", dir.display())))?;
    write("bench.json", &format!("{:#}\n", run.to_json()))?;
    let plots = plots(run);
    for (name, title, points) in &plots {
        write(name, &plot::svg(title, points))?;
    }
    write("bench.md", &markdown(run, &plots))?;
    println!(
        "\nwrote bench.json, bench.md and {} plots to {}",
        plots.len(),
        dir.display()
    );
    Ok(())
}

/// A plot's file, its title and its points: one for each unit, because units share no axis.
type Plot<'a> = (String, &'a str, Vec<&'a Point>);

fn plots(run: &Run) -> Vec<Plot<'_>> {
    let mut plots: Vec<Plot<'_>> = Vec::new();
    for point in &run.points {
        let same = |plot: &&mut Plot<'_>| plot.1 == point.plot && plot.2[0].unit == point.unit;
        match plots.iter_mut().find(same) {
            Some(plot) => plot.2.push(point),
            None => plots.push((format!("plot-{}.svg", plots.len() + 1), &point.plot, vec![point])),
        }
    }
    plots
}

fn markdown(run: &Run, plots: &[Plot<'_>]) -> String {
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
        let _ = writeln!(
            text,
            "\n## {table}\n\n| | measured | floor or peer | ratio | target | verdict |\n|---|---|---|---|---|---|"
        );
        for row in run.rows.iter().filter(|row| row.table == table) {
            text += &line(row);
        }
    }
    for (name, title, points) in plots {
        let _ = writeln!(text, "\n![{title}, {}]({name})", points[0].unit);
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
    let against = format!("{} {}", row.peer, row.floor);
    format!(
        "| {} | {} | {} | {ratio} | {} | {verdict} |\n",
        cell(&row.name),
        cell(&row.measured),
        cell(against.trim()),
        row.target.as_deref().unwrap_or_default(),
    )
}

fn digits(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Text that does not end its cell.
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
    fn the_report_tells_what_was_missed_and_shows_every_plot() {
        let mut run = Run::default();
        run.machine.push(("cores".into(), "2".into()));
        run.add_lines(LINES).expect("good lines");
        let dir = std::env::temp_dir().join(format!("xtask-bench-report-{}", std::process::id()));
        write(&run, &dir).expect("a temporary directory");
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("written");
        let text = read("bench.md");
        let plots = [read("plot-1.svg"), read("plot-2.svg")];
        fs::remove_dir_all(&dir).expect("it is there");
        let row =
            "| un\\|ordered | 12.0 M/s | rayon 60.0 M/s | 0.200x [0.180 .. 0.210] | >= 0.3 | **missed** |";
        assert!(text.contains(row) && text.contains("| cores | 2 |"), "{text}");
        assert!(text.contains("0 targets met, 1 missed"), "{text}");
        assert!(text.contains("![Null op, ns/task](plot-2.svg)"), "{text}");
        assert!(plots[0].contains("polyline") && plots[1].contains("ns/task"));
    }
}

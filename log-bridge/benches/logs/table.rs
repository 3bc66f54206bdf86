//! Targets, what was measured, and the verdicts.

/// One line each.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    target: String,
    measured: String,
    verdict: &'static str,
    detail: String,
}

impl Table {
    /// A ratio that is to be at most `most`.
    pub(crate) fn at_most(&mut self, what: &str, most: f64, measured: f64, detail: String) {
        let target = format!("<= {most:.1}x");
        self.push(
            what,
            target,
            format!("{measured:.2}x"),
            verdict(measured <= most),
            detail,
        );
    }

    /// A ratio that is to be at least `least`.
    pub(crate) fn at_least(&mut self, what: &str, least: f64, measured: f64, detail: String) {
        let target = format!(">= {least:.1}x");
        self.push(
            what,
            target,
            format!("{measured:.2}x"),
            verdict(measured >= least),
            detail,
        );
    }

    /// Something that is so or not.
    pub(crate) fn holds(&mut self, what: &str, holds: bool, detail: String) {
        let measured = if holds { "yes" } else { "no" };
        self.push(what, "yes".into(), measured.into(), verdict(holds), detail);
    }

    /// Something without a target.
    pub(crate) fn info(&mut self, what: &str, measured: f64, detail: String) {
        self.push(what, String::new(), format!("{measured:.2}x"), "", detail);
    }

    fn push(&mut self, what: &str, target: String, measured: String, verdict: &'static str, detail: String) {
        self.0.push(Row {
            what: what.into(),
            target,
            measured,
            verdict,
            detail,
        });
    }

    pub(crate) fn print(&self) {
        println!(
            "{:58} {:>8} {:>9}  {:8} how",
            "what", "target", "measured", "verdict"
        );
        for row in &self.0 {
            println!(
                "{:58} {:>8} {:>9}  {:8} {}",
                row.what, row.target, row.measured, row.verdict, row.detail
            );
        }
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

//! The benchmarks, by area: `catalog.json`.
//!
//! What runs in one process is measured by criterion: write it as a benchmark, and its comparisons into the catalog. What
//! spans processes is a benchmark with `harness = false` that takes `--quick` and `--bytes N`, measures in
//! turns with a floor or a peer, and reports its rows itself (`rows`). Few rounds are enough: everything is run in several
//! passes (`passes`), each a new process, and the spread of a row is that of all of them.

use std::sync::LazyLock;

use serde::Deserialize;

pub(super) static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let catalog = serde_json::from_str(include_str!("catalog.json"));
    catalog.expect("catalog.json describes scenarios")
});

#[derive(Deserialize)]
pub(super) struct Catalog {
    /// Their names and descriptions.
    pub(super) areas: Vec<(String, String)>,
    /// In the order in which they run, from the lowest crate up.
    pub(super) scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
pub(super) struct Scenario {
    pub(super) area: String,
    pub(super) about: String,
    pub(super) package: String,
    /// The name of the `[[bench]]`.
    pub(super) bench: String,
    /// The title of the table of comparisons, for a benchmark of criterion.
    #[serde(default)]
    pub(super) table: String,
    #[serde(default)]
    pub(super) comparisons: Vec<Comparison>,
}

/// Two benchmarks of criterion, by its names for them.
#[derive(Deserialize)]
pub(super) struct Comparison {
    pub(super) row: String,
    pub(super) measured: String,
    /// The floor or the peer.
    pub(super) against: String,
    /// The target: the largest ratio of their times.
    pub(super) at_most: Option<f64>,
}

impl Catalog {
    pub(super) fn list(&self) -> String {
        let mut text = String::new();
        for (area, about) in &self.areas {
            text += &format!("{area:8} {about}\n");
            for scenario in self.scenarios.iter().filter(|it| it.area == *area) {
                text += &format!("  {:16} {}\n", scenario.bench, scenario.about);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_in_a_listed_area() {
        let list = CATALOG.list();
        assert!(list.starts_with("shm      sharing") && list.contains("\n  rings            a frame"));
        for Scenario { area, .. } in &CATALOG.scenarios {
            assert!(CATALOG.areas.iter().any(|(listed, _)| listed == area), "{area}");
        }
    }
}

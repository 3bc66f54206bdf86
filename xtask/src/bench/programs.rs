//! The benchmarks' programs: built by one call of cargo, so that nothing is built twice, then run one after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::catalog::{Scenario, Target};
use super::criterion;
use super::options::{Effort, Options};
use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::Workspace;

/// Where the programs are, by their targets' names.
#[derive(Debug)]
pub(super) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds them, with optimizations.
    pub(super) fn build(scenarios: &[&Scenario]) -> Result<Self, Error> {
        let json = build_command(scenarios).stdout()?;
        Ok(Self(executables(&json)))
    }

    /// The command line of a scenario.
    pub(super) fn command(
        &self,
        scenario: &Scenario,
        options: &Options,
        workspace: &Workspace,
    ) -> Result<Cmd, Error> {
        let name = scenario.target.name();
        let program = self
            .0
            .get(name)
            .ok_or_else(|| Error::failed(format!("cargo built no program `{name}`")))?;
        let member = workspace
            .member(scenario.package)
            .ok_or_else(|| Error::failed(format!("there is no crate `{}`", scenario.package)))?;
        // As cargo runs them: where they belong, and told that they are to measure.
        let command = Cmd::new(program).current_dir(&member.dir);
        Ok(match &scenario.target {
            Target::Bench(_) => command.args(["--bench"]).args(options.to_args()),
            Target::Example(_) => command.args(options.to_args()),
            Target::Criterion(..) => command
                .args(["--bench", "--noplot"])
                .args(criterion_args(options.effort))
                .env(criterion::HOME, criterion_home(&workspace.target)),
        })
    }
}

/// Not where `cargo bench` lets criterion write: people keep baselines there.
pub(super) fn criterion_home(target: &Path) -> PathBuf {
    target.join("bench-criterion")
}

fn criterion_args(effort: Effort) -> [&'static str; 6] {
    match effort {
        Effort::Full => [
            "--sample-size",
            "20",
            "--warm-up-time",
            "0.3",
            "--measurement-time",
            "0.6",
        ],
        Effort::Quick => [
            "--sample-size",
            "10",
            "--warm-up-time",
            "0.05",
            "--measurement-time",
            "0.1",
        ],
    }
}

fn build_command(scenarios: &[&Scenario]) -> Cmd {
    let mut args = Vec::new();
    for scenario in scenarios {
        let kind = match scenario.target {
            Target::Bench(_) | Target::Criterion(..) => "--bench",
            Target::Example(_) => "--example",
        };
        for pair in [["-p", scenario.package], [kind, scenario.target.name()]] {
            if !args.contains(&pair) {
                args.push(pair);
            }
        }
    }
    // Not `cargo bench --no-run`, which makes tests of examples.
    Cmd::cargo()
        .args([
            "build",
            "--release",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(args.into_iter().flatten())
}

/// What cargo's messages say about programs
/// (format: <https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        })
        .collect()
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

    #[test]
    fn all_are_built_at_once_and_each_package_is_named_once() {
        let eval = Scenario {
            target: Target::Example("eval"),
            ..COPY
        };
        let count = Scenario {
            package: "progress",
            target: Target::Criterion("count", "t", &[]),
            ..COPY
        };
        let shown = build_command(&[&COPY, &eval, &count]).shown().to_owned();
        let expected = "-p shm-buffers --bench copy --example eval -p progress --bench count";
        assert!(shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"shm_buffers"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"copy"},"executable":"/t/copy-1"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages);
        assert_eq!(
            found,
            BTreeMap::from([("copy".to_owned(), PathBuf::from("/t/copy-1"))])
        );
    }

    #[test]
    fn options_reach_the_programs() {
        let metadata = r#"{"workspace_root":"/w","target_directory":"/t","packages":[{"name":"shm-buffers",
            "manifest_path":"/w/shm-buffers/Cargo.toml","targets":[],"dependencies":[],"features":{}}]}"#;
        let workspace = Workspace::from_metadata(metadata).expect("cargo's own form");
        let programs = Programs(BTreeMap::from([("copy".to_owned(), PathBuf::from("/t/copy-1"))]));
        let options = Options {
            bytes: Some(64),
            ..Options::default()
        };
        let command = programs
            .command(&COPY, &options, &workspace)
            .expect("it was built");
        assert_eq!(command.shown(), "/t/copy-1 --bench --bytes 64");
        let missing = Scenario {
            target: Target::Example("eval"),
            ..COPY
        };
        assert!(programs.command(&missing, &options, &workspace).is_err());
    }
}

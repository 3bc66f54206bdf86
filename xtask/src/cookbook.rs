//! `cargo xtask cookbook`: lints and runs the recipes of the package `cookbook`, which is in a workspace of its own.

mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{MetadataCommand, Package};
use xshell::Cmd;

use table::Table;

use crate::NotRun;
use crate::run::{self, Tally};
use crate::workspace::Workspace;

/// The columns of the table, in the order in which a recipe prints them with `--table`.
const HEAD: [&str; 7] = [
    "model",
    "shared",
    "mapped",
    "PSS together",
    "private per worker",
    "attach",
    "copies",
];

/// What `ci` runs: a view over bytes of a library, and a collection of ours. They bring few crates.
const SAMPLE: [&str; 2] = ["fst_map", "inverted_index"];

/// Run models as users have them, each in a program that checks its memory
///
/// Prints a line for each recipe: the size of its model, the private memory of each worker, and the times of sharing and attaching it.
/// `--table` runs them with four workers, and prints one table: the bytes in shared memory and in mapped files, the proportional set sizes
/// (PSS) of the leader and all workers together, the private memory of the worker with the most of it, the time of the slowest attach,
/// and how many copies of the model there are.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Run only these recipes; --list names them
    #[arg(value_name = "RECIPE")]
    recipes: Vec<String>,
    /// Enable recipes whose crates build for minutes
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Models of a fifth of the size
    #[arg(long)]
    small: bool,
    /// Print one table of all recipes, with four workers each
    #[arg(long)]
    table: bool,
    /// List the recipes, with the features that those need which do not run by default
    #[arg(long)]
    list: bool,
}

pub(crate) fn main(args: &Args, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let book = Cookbook::load(workspace)?;
    if args.list {
        print!("{}", book.list());
        return Ok(());
    }
    let chosen = book.choose(&args.recipes, &args.features)?;
    let needed: BTreeSet<&str> = chosen
        .iter()
        .flat_map(|recipe| &recipe.features)
        .map(|it| &**it)
        .collect();
    let features = Vec::from_iter(needed).join(",");

    cargo(workspace, &book, "fmt --check").run()?;
    let build = |verb: &str| {
        let verb = format!("{verb} --locked --no-default-features --features={features} --target-dir");
        cargo(workspace, &book, &verb).arg(&workspace.target)
    };
    build("clippy --all-targets")
        .args(["--", "-D", "warnings"])
        .run()?;
    run::tests(build("test --lib"), tally)?;
    let mut failed = Vec::new();
    let mut table = Table::new(&HEAD);
    for Recipe { name, .. } in chosen {
        let small = args.small.then_some("--small");
        let run = build("run --quiet").args(["--bin", name, "--"]).args(small);
        let result = match args.table {
            true => run
                .args(["--table", "--workers", "4"])
                .read()
                .map(|rows| table.add(&rows)),
            false => run.run(),
        };
        if let Err(error) = result {
            eprintln!("{error}");
            failed.push(name.as_str());
        }
    }
    if args.table {
        print!("{table}");
    }
    let failed = failed.join(", ");
    ensure!(failed.is_empty(), "recipes failed: {failed}");
    Ok(())
}

/// Runs the small recipes with small models.
pub(crate) fn sample(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let args = Args {
        recipes: SAMPLE.map(str::to_owned).into(),
        small: true,
        ..Args::default()
    };
    main(&args, workspace, tally)
}

/// Cargo in the workspace of the cookbook.
fn cargo<'a>(workspace: &'a Workspace, book: &Cookbook, args: &str) -> Cmd<'a> {
    let (verb, rest) = args.split_once(' ').unwrap_or((args, ""));
    let cargo = workspace.cargo(verb).arg("--manifest-path").arg(&book.manifest);
    cargo.args(rest.split_whitespace())
}

/// A program of the cookbook.
#[derive(Debug)]
struct Recipe {
    name: String,
    /// The features of the cookbook that it requires.
    features: Vec<String>,
}

#[derive(Debug)]
struct Cookbook {
    manifest: PathBuf,
    recipes: Vec<Recipe>,
    /// All features.
    features: Vec<String>,
    /// The features of the recipes that run by default.
    default: Vec<String>,
}

impl Cookbook {
    fn load(workspace: &Workspace) -> Result<Self> {
        let manifest = workspace.root.join("cookbook/Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(&manifest).no_deps().exec()?;
        let package = metadata.packages.first().context("the cookbook has no package")?;
        Ok(Self::of(package, &manifest))
    }

    fn of(package: &Package, manifest: &Path) -> Self {
        let programs = package.targets.iter().filter(|target| target.is_bin());
        let recipes = programs.map(|program| Recipe {
            name: program.name.clone(),
            features: program.required_features.clone(),
        });
        Self {
            manifest: manifest.to_owned(),
            recipes: recipes.collect(),
            features: package.features.keys().cloned().collect(),
            default: package.features.get("default").cloned().unwrap_or_default(),
        }
    }

    fn list(&self) -> String {
        let line = |recipe: &Recipe| {
            let mut missing = recipe
                .features
                .iter()
                .filter(|feature| !self.default.contains(feature));
            let option = missing.next().map(|feature| format!("--features {feature}"));
            let line = format!("{:15} {}", recipe.name, option.unwrap_or_default());
            line.trim_end().to_owned() + "\n"
        };
        self.recipes.iter().map(line).collect()
    }

    /// Returns the recipes of these names, or without any name all whose features are among the default ones and `more`.
    fn choose(&self, names: &[String], more: &[String]) -> Result<Vec<&Recipe>> {
        if let Some(unknown) = more.iter().find(|feature| !self.features.contains(feature)) {
            bail!(NotRun(format!(
                "the cookbook has no feature `{unknown}`; --list names them"
            )));
        }
        let missing = |recipe: &Recipe| {
            let mut features = recipe.features.iter();
            let is_off = |feature: &&String| !self.default.contains(feature) && !more.contains(feature);
            features.find(is_off).cloned()
        };
        if names.is_empty() {
            let recipes = self.recipes.iter();
            return Ok(recipes.filter(|recipe| missing(recipe).is_none()).collect());
        }
        let by_name = |name: &String| {
            let Some(recipe) = self.recipes.iter().find(|recipe| recipe.name == *name) else {
                bail!(NotRun(format!(
                    "the cookbook has no recipe `{name}`; --list names them"
                )));
            };
            if let Some(feature) = missing(recipe) {
                bail!(NotRun(format!(
                    "`{name}` builds for minutes; add --features {feature}"
                )));
            }
            Ok(recipe)
        };
        names.iter().map(by_name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn book() -> Cookbook {
        let recipe = |name: &str, features: &[&str]| Recipe {
            name: name.to_owned(),
            features: owned(features),
        };
        Cookbook {
            manifest: PathBuf::new(),
            recipes: vec![
                recipe("plain", &[]),
                recipe("light", &["l"]),
                recipe("heavy", &["h"]),
            ],
            features: owned(&["default", "h", "l"]),
            default: owned(&["l"]),
        }
    }

    fn chosen(names: &[&str], features: &[&str]) -> Result<Vec<String>> {
        let book = book();
        let chosen = book.choose(&owned(names), &owned(features))?;
        Ok(chosen.iter().map(|recipe| recipe.name.clone()).collect())
    }

    #[test]
    fn heavy_recipes_run_with_their_feature_only() -> Result<()> {
        assert_eq!(chosen(&[], &[])?, ["plain", "light"]);
        assert_eq!(chosen(&[], &["h"])?, ["plain", "light", "heavy"]);
        assert_eq!(chosen(&["heavy", "plain"], &["h"])?, ["heavy", "plain"]);
        assert_eq!(book().list(), "plain\nlight\nheavy           --features h\n");
        Ok(())
    }

    #[test]
    fn wrong_names_are_wrong_usage() {
        for (names, features, word) in [
            (["heavy"], &[][..], "--features h"),
            (["absent"], &[], "`absent`"),
            (["plain"], &["absent"], "`absent`"),
        ] {
            let error = chosen(&names, features).expect_err("accepted wrong usage");
            assert!(
                error.is::<NotRun>() && error.to_string().contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn sample_needs_no_heavy_feature() {
        let workspace = Workspace::load().expect("cargo describes the workspace");
        let book = Cookbook::load(&workspace).expect("cargo describes the cookbook");
        let chosen = book.choose(&owned(&SAMPLE), &[]).expect("the recipes exist");
        assert_eq!(chosen.len(), SAMPLE.len());
    }
}

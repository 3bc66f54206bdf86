//! Import cycles: modules of a crate that can only be read together.
//!
//! A module and its submodules count as one unit: cycles are found among the children of each module, and imports between a
//! module and its own submodules do not count.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use super::imports::{Import, Imports};

/// A cycle of more units is a problem.
const MAX_UNITS: usize = 2;

/// A cycle that is allowed: the directory of the crate, all modules that may be in the cycle, and why it is harmless.
type Known = (&'static str, &'static str, &'static str);

pub(super) const KNOWN: &[Known] = &[(
    "shm-buffers/src",
    "os::mapping os::space os::unix os::windows",
    "one of two platforms is compiled, which gives the others its system calls",
)];

/// Each unit with those that it imports, and one such import of each.
type Graph<'a> = BTreeMap<String, BTreeMap<String, &'a Import>>;

pub(super) fn check(imports: &Imports, known: &[Known]) -> Vec<Problem> {
    let mut graph = Graph::new();
    for import in &imports.list {
        if let Some((from, to)) = units(&import.from, &import.to) {
            graph.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut unused = known.to_vec();
    unused.retain(|(directory, ..)| *directory == imports.directory);
    let mut problems = Vec::new();
    for cycle in cycles(&graph) {
        let is_known = |modules: &str| cycle.iter().all(|unit| modules.split(' ').any(|it| it == unit));
        let before = unused.len();
        unused.retain(|(_, modules, _)| !is_known(modules));
        if cycle.len() <= MAX_UNITS || unused.len() < before {
            continue;
        }
        let mut message = format!("import cycle of {} modules", cycle.len());
        for unit in &cycle {
            let mut inside = graph[unit].iter().filter(|(other, _)| cycle.contains(*other));
            if let Some((other, import)) = inside.next() {
                message += &format!("; `{unit}` imports `{other}` at {}:{}", import.path, import.line);
            }
        }
        problems.push(Problem::new(&imports.directory, 0, message));
    }
    for (_, modules, reason) in unused {
        let message = format!("the cycle of `{modules}` ({reason}) is gone: remove it from tidy's KNOWN");
        problems.push(Problem::new(&imports.directory, 0, message));
    }
    problems
}

/// Returns the different children of the innermost module that contains both; `None` if one contains the other.
fn units(from: &str, to: &str) -> Option<(String, String)> {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split("::").collect(), to.split("::").collect());
    let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
    Some((from.get(..=common)?.join("::"), to.get(..=common)?.join("::")))
}

/// Returns the strongly connected components of more than one unit.
fn cycles(graph: &Graph<'_>) -> BTreeSet<Vec<String>> {
    let reachable = |from: &String| {
        let (mut found, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(unit) = next.pop() {
            let imported = graph.get(unit).into_iter().flat_map(BTreeMap::keys);
            next.extend(imported.filter(|unit| found.insert((*unit).clone())));
        }
        found
    };
    let reachable: BTreeMap<&String, _> = graph.keys().map(|unit| (unit, reachable(unit))).collect();
    let mut cycles = BTreeSet::new();
    for (unit, ahead) in &reachable {
        let reaches_back = |other: &&String| reachable.get(other).is_some_and(|back| back.contains(*unit));
        cycles.insert(ahead.iter().filter(reaches_back).cloned().collect::<Vec<_>>());
    }
    cycles.retain(|cycle| cycle.len() > 1);
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], known: &[Known]) -> Vec<String> {
        let problems = check(&Imports::of_texts("x/src", files), known);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    const A: (&str, &str) = ("a.rs", "use crate::b;");
    const B: (&str, &str) = ("b.rs", "use crate::c::d;");
    const C: (&str, &str) = ("c.rs", "mod d;");
    const D: (&str, &str) = ("c/d.rs", "fn f() { crate::a::f() }");

    #[test]
    fn cycle_of_three_modules_is_found_and_shown() {
        let expected = "import cycle of 3 modules; `a` imports `b` at x/src/a.rs:1; `b` imports `c` at x/src/b.rs:1; \
                        `c` imports `a` at x/src/c/d.rs:1";
        assert_eq!(found(&[A, B, C, D], &[]), [expected]);
    }

    #[test]
    fn pairs_and_chains_are_no_problem() {
        for text in ["use crate::b;", ""] {
            assert_eq!(found(&[A, B, C, ("c/d.rs", text)], &[]), [""; 0]);
        }
    }

    #[test]
    fn module_and_its_submodules_are_one_unit() {
        let c = ("c.rs", "use self::d::X;\nuse self::e::Y;");
        let [d, e] = [("c/d.rs", "use super::{Z, e};"), ("c/e.rs", "use super::Z;")];
        assert_eq!(found(&[c, d, e], &[]), [""; 0]);
        let [e, f] = [("c/e.rs", "use super::f;"), ("c/f.rs", "use crate::c::d;")];
        assert_eq!(found(&[c, d, e, f], &[]).len(), 1);
    }

    #[test]
    fn known_cycle_is_allowed_as_long_as_it_exists() {
        let found = |files: &[_], modules| found(files, &[("x/src", modules, "harmless")]);
        assert_eq!(found(&[A, B, C, D], "a b c e"), [""; 0]);
        assert_eq!(found(&[A, B, C, D], "a b").len(), 2);
        let gone = found(&[A, B, C], "a b c");
        assert!(gone[0].contains("`a b c` (harmless) is gone"), "{gone:?}");
    }
}

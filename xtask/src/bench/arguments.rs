//! Tests of the arguments that benchmarks share: they have no harness, so none of their own.

#[path = "../../../benchmarks/arguments.rs"]
#[allow(dead_code, reason = "the tests do not read the arguments of this process")]
mod shared;

use shared::{Arguments, WrongArgument};

fn parsed(line: &str) -> Result<Arguments, WrongArgument> {
    Arguments::parse(line.split_whitespace().map(str::to_owned), &["null", "work"])
}

#[test]
fn options_and_scenarios_are_parsed() {
    let all = parsed("--bench").expect("cargo's own option");
    assert!(all.is_bench && !all.is_quick && all.includes("null") && all.includes("work"));
    let one = parsed("work --quick --bytes 4096").expect("a scenario and options");
    assert_eq!((one.is_quick, one.bytes), (true, Some(4096)));
    assert!(one.includes("work") && !one.includes("null"));
}

#[test]
fn unknown_arguments_are_refused_with_the_names_of_scenarios() {
    for line in ["--help", "--bench nul", "work --quickly"] {
        let error = parsed(line)
            .expect_err("accepted an unknown argument")
            .to_string();
        let argument = line.split(' ').next_back().expect("a word");
        assert!(error.contains(&format!("`{argument}`")), "{error}");
        assert!(error.ends_with("the scenarios are null, work"), "{error}");
    }
    for line in ["--bytes", "--bytes many"] {
        let error = parsed(line).expect_err("accepted no number").to_string();
        assert!(error.contains("not a number of bytes"), "{error}");
    }
    let error = Arguments::parse(["x".to_owned()].into_iter(), &[]).expect_err("there are no scenarios");
    assert!(error.to_string().ends_with("--bytes N"), "{error}");
}

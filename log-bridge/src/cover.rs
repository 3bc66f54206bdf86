//! Reads the directives of an `EnvFilter` and covers everything that it may want: sometimes more, never less.
//!
//! `EnvFilter` has read its directives in different ways over its releases (what a blank before a target means, and a
//! comma within braces), and a program may build one leniently, strictly with a fallback, or without regular
//! expressions. So directives are read in each of these ways, and the filter is the union of the results. A
//! directive that any of them rejects adds everything that the process's subscribers want, because the program may then
//! fall back to any filter.

use tracing_core::LevelFilter;

use crate::filter::Filter;

/// What one directive says, as far as it matters for covering.
#[derive(Debug, PartialEq, Eq)]
enum Directive<'a> {
    /// A level for a target, or for all others.
    Target(Option<&'a str>, LevelFilter),
    /// A level for whatever happens in certain spans, or has certain fields.
    Dynamic(LevelFilter, Certain),
}

/// Whether `EnvFilter` accepts a directive in every mode: a value may be no regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certain {
    Yes,
    No,
}

/// How blanks around a directive are taken.
#[derive(Debug, Clone, Copy)]
enum Blanks {
    /// They are not part of it.
    Trimmed,
    /// As in tracing-subscriber 0.3: looked for in the trimmed text, cut out of the whole one.
    Shifted,
}

/// Covers `directives`, of a program whose subscribers want `wanted`.
pub(crate) fn covering(directives: &str, wanted: LevelFilter) -> Filter {
    let naive = || directives.split(',').filter(|part| !part.is_empty());
    let nested = nested(directives);
    [
        read(naive().map(|part| parse(part, Blanks::Shifted)), wanted),
        read(naive().map(|part| parse(part, Blanks::Trimmed)), wanted),
        read(nested.map(|part| parse(part, Blanks::Trimmed)), wanted),
    ]
    .into_iter()
    .reduce(Filter::union)
    .unwrap_or_default()
}

/// The parts between commas that are outside of brackets and braces.
fn nested(directives: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = directives.split(move |c: char| {
        depth = match c {
            '[' | '{' => depth + 1,
            ']' | '}' => depth.saturating_sub(1),
            _ => depth,
        };
        depth == 0 && c == ','
    });
    parts.filter(|part| !part.is_empty())
}

/// What directives want together.
fn read<'a>(directives: impl Iterator<Item = Option<Directive<'a>>>, wanted: LevelFilter) -> Filter {
    let mut filter = Filter::off();
    let mut least = LevelFilter::OFF;
    let mut certain = Certain::No;
    for directive in directives {
        match directive {
            None => least = least.max(wanted),
            Some(Directive::Target(target, level)) => {
                certain = Certain::Yes;
                filter = match target {
                    Some(target) => filter.target(target, level),
                    None => filter.others(level),
                };
            }
            Some(Directive::Dynamic(level, sure)) => {
                // Any span may be the one, and any event may be in it.
                filter = filter.spans(LevelFilter::TRACE);
                least = least.max(level);
                match sure {
                    Certain::Yes => certain = Certain::Yes,
                    Certain::No => least = least.max(wanted),
                }
            }
        }
    }
    if certain == Certain::No {
        // There may be no directive. Then an `EnvFilter` lets errors pass, or what its default directive says.
        least = least.max(LevelFilter::ERROR).max(wanted);
    }
    filter.at_least(least)
}

/// Reads one directive as `EnvFilter` does; `None` if it is rejected.
fn parse(whole: &str, blanks: Blanks) -> Option<Directive<'_>> {
    enum At {
        Start,
        LevelOrTarget,
        Span,
        Field(usize),
        Fields,
        Bracket,
        Level(usize),
    }
    let text = match blanks {
        Blanks::Trimmed => whole.trim(),
        Blanks::Shifted => whole,
    };
    let mut at = At::Start;
    let mut target = None;
    let mut span = None;
    let mut certain = Certain::Yes;
    for (i, c) in whole.trim().char_indices() {
        at = match (at, c) {
            (At::Start, '[') => {
                span = Some(());
                At::Span
            }
            (At::Start, c) if !['-', ':', '_'].contains(&c) && !c.is_alphanumeric() => return None,
            (At::Start, _) => At::LevelOrTarget,
            (At::LevelOrTarget, '=') => {
                target = Some(text.get(..i)?);
                At::Level(i + 1)
            }
            (At::LevelOrTarget, '[') => {
                target = Some(text.get(..i)?);
                span = Some(());
                At::Span
            }
            (At::Span, ']') => At::Bracket,
            (At::Span, '{') => At::Field(i + 1),
            (At::Field(start), ',' | '}') => {
                let field = text.get(start..i)?;
                if field.is_empty() {
                    return None;
                }
                if !is_surely_valid(field) {
                    certain = Certain::No;
                }
                match c {
                    '}' => At::Fields,
                    _ => At::Field(i + 1),
                }
            }
            (At::Fields, ']') => At::Bracket,
            (At::Bracket, '=') => At::Level(i + 1),
            (At::LevelOrTarget, _) => At::LevelOrTarget,
            (At::Span, _) => At::Span,
            (At::Field(start), _) => At::Field(start),
            (At::Level(start), _) => At::Level(start),
            (At::Fields | At::Bracket, _) => return None,
        };
    }
    let level = match at {
        At::LevelOrTarget => match text.parse() {
            Ok(level) => level,
            Err(_) => {
                target = Some(text);
                LevelFilter::TRACE
            }
        },
        At::Level(start) => match text.get(start..)? {
            "" => LevelFilter::TRACE,
            level => level.parse().ok()?,
        },
        At::Bracket => LevelFilter::TRACE,
        At::Start | At::Span | At::Field(_) | At::Fields => return None,
    };
    Some(match span {
        Some(()) => Directive::Dynamic(level, certain),
        None => Directive::Target(target, level),
    })
}

/// Whether the value of a field, if it has one, is a regular expression for certain.
fn is_surely_valid(field: &str) -> bool {
    let literal = |c: char| c.is_ascii_alphanumeric() || "_-:./\" ".contains(c);
    field.split('=').skip(1).all(|value| value.chars().all(literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_targets_are_taken_as_they_are() {
        for (directives, expected) in [
            ("debug", "debug"),
            ("info,a::b=off,c", "info,a::b=off,c=trace"),
            ("warn,app=", "warn,app=trace"),
            ("5,a=1", "trace,a=error"),
            ("INFO,,A=Warn,", "info,A=warn"),
        ] {
            let filter = covering(directives, LevelFilter::OFF);
            assert_eq!(filter.to_string(), expected, "{directives}");
        }
    }

    #[test]
    fn a_span_or_a_field_raises_everything_and_lets_all_spans_through() {
        for (directives, expected) in [
            ("a=warn,[s]", "trace,a=trace"),
            ("off,t[s{x=1}]=info,a=debug", "info,a=debug"),
            ("off,a{id=7}=debug,[{id}]=warn", "warn"),
        ] {
            let filter = covering(directives, LevelFilter::OFF);
            assert_eq!(filter.to_string(), expected, "{directives}");
            assert_eq!(filter.max_level(), LevelFilter::TRACE, "of spans");
        }
    }

    #[test]
    fn what_is_rejected_or_missing_means_what_subscribers_want() {
        for directives in [
            "",
            ",",
            "x=loud",
            "\"info\"",
            "*=info",
            "a==debug",
            "[s",
            "[s{}]=info",
        ] {
            let filter = covering(directives, LevelFilter::DEBUG);
            assert_eq!(filter.to_string(), "debug", "{directives}");
            let filter = covering(directives, LevelFilter::OFF);
            assert_eq!(filter.to_string(), "error", "{directives}");
        }
        let filter = covering("a=error,b=loud", LevelFilter::INFO);
        assert_eq!(filter.to_string(), "info,a=info");
    }

    #[test]
    fn blanks_are_read_in_either_way() {
        // `EnvFilter` rejects the second directive today, and may accept it tomorrow.
        let filter = covering("debug, hyper=warn", LevelFilter::OFF);
        assert!(filter.to_string().starts_with("debug"), "{filter}");
        assert_eq!(filter.level_for("hyper"), LevelFilter::DEBUG);
        // It takes this for a target of that name today.
        assert_eq!(
            covering("debug\n", LevelFilter::OFF).level_for("a"),
            LevelFilter::DEBUG
        );
    }
}

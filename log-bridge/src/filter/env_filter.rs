//! A [`Filter`] that lets pass whatever an `EnvFilter` wants: sometimes more, never less.
//!
//! Releases of `EnvFilter` differ in how they parse directives (the meaning of a blank before a target, and of a comma
//! within braces), and a program may build one leniently, strictly with a fallback, or without regular expressions.
//! Directives are therefore parsed in each of these ways, and the filter is the union of the results. A directive that
//! any of them rejects adds everything up to the current level of the process's subscribers, because the program may then
//! fall back to any filter.

use tracing_core::LevelFilter;

use super::{Filter, current_level};

/// One directive, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Directive<'a> {
    /// A level for a target, or for all targets without a directive.
    Target(Option<&'a str>, LevelFilter),
    /// A level for events in certain spans, or with certain fields.
    Dynamic(LevelFilter, Accepted),
}

/// Whether every kind of `EnvFilter` accepts a directive. One whose value is not a valid regular expression is rejected
/// unless regular expressions are disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Always,
    Perhaps,
}

/// How blanks around a directive are treated.
#[derive(Debug, Clone, Copy)]
enum Blanks {
    /// They are not part of the directive.
    Trimmed,
    /// As in tracing-subscriber 0.3: positions are found in the trimmed text, but taken from the whole text.
    Shifted,
}

impl Filter {
    /// Returns a filter that covers the directives of an `EnvFilter`, such as `RUST_LOG` holds: the leader's `EnvFilter`
    /// decides as if workers sent everything.
    ///
    /// Directives for targets are used as they are; without a level they mean TRACE. A directive for a span or a field
    /// (`[span{field=value}]=level`) may want events of any target, so it raises all levels to its own and lets all
    /// [spans](Self::spans) pass. Without directives, as when `RUST_LOG` is unset, the filter is [`Filter::current`]; a
    /// directive that is rejected adds that. So call it after the subscribers were set.
    ///
    /// It may let more pass than the `EnvFilter`, never less: the tests compare them over generated directives. For an
    /// `EnvFilter` with further directives that the program adds, pass its text: `Filter::covering(&filter.to_string())`.
    ///
    /// ```
    /// use log_bridge::Filter;
    /// let filter = Filter::covering("warn,my_crate=debug,[user{id=7}]=info");
    /// assert_eq!(filter.to_string(), "info,my_crate=debug");
    /// ```
    pub fn covering(directives: &str) -> Self {
        covering(directives, current_level())
    }
}

/// Covers `directives` of a program whose subscribers enable `current`.
fn covering(directives: &str, current: LevelFilter) -> Filter {
    let naive = || directives.split(',').filter(|part| !part.is_empty());
    let nested = split_outside_brackets(directives);
    [
        combine(naive().map(|part| parse(part, Blanks::Shifted)), current),
        combine(naive().map(|part| parse(part, Blanks::Trimmed)), current),
        combine(nested.map(|part| parse(part, Blanks::Trimmed)), current),
    ]
    .into_iter()
    .reduce(Filter::union)
    .unwrap_or_default()
}

/// Splits directives at the commas that are outside of brackets and braces.
fn split_outside_brackets(directives: &str) -> impl Iterator<Item = &str> {
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

/// Returns the filter that all directives together need; `None` stands for one that is rejected.
fn combine<'a>(directives: impl Iterator<Item = Option<Directive<'a>>>, current: LevelFilter) -> Filter {
    let mut filter = Filter::off();
    let mut least = LevelFilter::OFF;
    let mut any = Accepted::Perhaps;
    for directive in directives {
        match directive {
            None => least = least.max(current),
            Some(Directive::Target(target, level)) => {
                any = Accepted::Always;
                filter = match target {
                    Some(target) => filter.target(target, level),
                    None => filter.default_level(level),
                };
            }
            Some(Directive::Dynamic(level, accepted)) => {
                // Any span may match, and any event may be in it.
                filter = filter.spans(LevelFilter::TRACE);
                least = least.max(level);
                match accepted {
                    Accepted::Always => any = Accepted::Always,
                    Accepted::Perhaps => least = least.max(current),
                }
            }
        }
    }
    if any == Accepted::Perhaps {
        // Without any directive, an `EnvFilter` lets errors pass, or what its default directive says.
        least = least.max(LevelFilter::ERROR).max(current);
    }
    filter.at_least(least)
}

/// Parses one directive as `EnvFilter` does; returns `None` if it is rejected.
fn parse(whole: &str, blanks: Blanks) -> Option<Directive<'_>> {
    /// The part of the directive that the current character belongs to; a number is where that part starts.
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
    let mut accepted = Accepted::Always;
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
                if !is_valid_regex(field) {
                    accepted = Accepted::Perhaps;
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
        Some(()) => Directive::Dynamic(level, accepted),
        None => Directive::Target(target, level),
    })
}

/// Returns `true` only if the value of a field, if it has one, is a valid regular expression.
fn is_valid_regex(field: &str) -> bool {
    let literal = |c: char| c.is_ascii_alphanumeric() || "_-:./\" ".contains(c);
    field.split('=').skip(1).all(|value| value.chars().all(literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_for_targets_are_used_as_they_are() {
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
    fn a_directive_for_a_span_or_a_field_raises_all_levels_and_lets_all_spans_pass() {
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
    fn a_rejected_or_missing_directive_means_the_current_level() {
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
    fn blanks_are_parsed_in_either_way() {
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

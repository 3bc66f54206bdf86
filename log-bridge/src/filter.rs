//! Which events a worker sends: the leader's wish, pushed down.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_core::{LevelFilter, Metadata};
use tracing_subscriber::filter::Targets;

/// A maximum level, and other ones for some targets. What it refuses costs the worker a level check.
///
/// It crosses to the worker with serde. A directive holds for all targets that begin with its own; of several the
/// longest holds.
///
/// ```
/// use log_bridge::Filter;
/// use tracing::level_filters::LevelFilter;
/// let filter = Filter::new(LevelFilter::INFO).target("hyper", LevelFilter::WARN);
/// assert_eq!(filter, "info,hyper=warn".parse().unwrap());
/// assert_eq!(filter.max_level(), LevelFilter::INFO);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    #[serde(with = "level")]
    default: LevelFilter,
    /// The longest target first.
    directives: Vec<Directive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Directive {
    target: String,
    #[serde(with = "level")]
    level: LevelFilter,
}

/// A text is no filter.
#[derive(Debug, thiserror::Error)]
#[error("invalid log filter {text:?}: give a level, or TARGET=LEVEL, separated by commas")]
pub struct ParseFilterError {
    text: String,
    source: tracing_subscriber::filter::ParseError,
}

impl Filter {
    /// Everything up to `level`.
    pub fn new(level: LevelFilter) -> Self {
        Self {
            default: level,
            directives: Vec::new(),
        }
    }

    /// Nothing at all.
    pub fn off() -> Self {
        Self::new(LevelFilter::OFF)
    }

    /// What the subscribers of this process want at most, as they told `tracing`. To be called in the leader once
    /// its subscriber is set; without one it is [`off`](Self::off).
    pub fn wanted() -> Self {
        Self::new(LevelFilter::current())
    }

    /// Everything up to `level` from targets that begin with `target`.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>, level: LevelFilter) -> Self {
        let target = target.into();
        self.directives.retain(|directive| directive.target != target);
        self.directives.push(Directive { target, level });
        self.directives.sort_by(|a, b| {
            b.target
                .len()
                .cmp(&a.target.len())
                .then_with(|| a.target.cmp(&b.target))
        });
        self
    }

    /// The most verbose level that any target may use.
    pub fn max_level(&self) -> LevelFilter {
        self.directives
            .iter()
            .map(|directive| directive.level)
            .fold(self.default, Ord::max)
    }

    /// Whether an event or span with this metadata is sent.
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level_for(metadata.target())
    }

    fn level_for(&self, target: &str) -> LevelFilter {
        self.directives
            .iter()
            .find(|directive| target.starts_with(&directive.target))
            .map_or(self.default, |directive| directive.level)
    }
}

impl Default for Filter {
    /// Everything up to INFO.
    fn default() -> Self {
        Self::new(LevelFilter::INFO)
    }
}

impl From<Targets> for Filter {
    fn from(targets: Targets) -> Self {
        let default = targets.default_level().unwrap_or(LevelFilter::OFF);
        targets
            .into_iter()
            .fold(Self::new(default), |filter, (target, level)| {
                filter.target(target, level)
            })
    }
}

impl FromStr for Filter {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<Targets>() {
            Ok(targets) => Ok(targets.into()),
            Err(source) => Err(ParseFilterError {
                text: text.to_owned(),
                source,
            }),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.directives
            .iter()
            .try_for_each(|directive| write!(f, ",{}={}", directive.target, directive.level))
    }
}

/// [`LevelFilter`] as a number: 0 is off, 5 is TRACE.
mod level {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tracing_core::LevelFilter;

    const LEVELS: [LevelFilter; 6] = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];

    pub(super) fn serialize<S: Serializer>(level: &LevelFilter, serializer: S) -> Result<S::Ok, S::Error> {
        let index = LEVELS.iter().position(|known| known == level).unwrap_or_default();
        serializer.serialize_u8(index as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LevelFilter, D::Error> {
        let index = u8::deserialize(deserializer)?;
        LEVELS
            .get(usize::from(index))
            .copied()
            .ok_or_else(|| D::Error::custom(format_args!("unknown level filter {index}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_target_holds() {
        let filter: Filter = "warn,a=trace,a::b=off".parse().unwrap();
        assert_eq!(filter.level_for("c"), LevelFilter::WARN);
        assert_eq!(filter.level_for("a::c"), LevelFilter::TRACE);
        assert_eq!(filter.level_for("a::b::c"), LevelFilter::OFF);
        assert_eq!(filter.max_level(), LevelFilter::TRACE);
        assert_eq!(filter.to_string(), "warn,a::b=off,a=trace");
    }

    #[test]
    fn it_crosses() {
        let filter = Filter::new(LevelFilter::OFF).target("x", LevelFilter::DEBUG);
        let bytes = postcard::to_stdvec(&filter).unwrap();
        assert_eq!(postcard::from_bytes::<Filter>(&bytes).unwrap(), filter);
        assert!(postcard::from_bytes::<Filter>(&[6, 0]).is_err());
    }

    #[test]
    fn defaults_and_nonsense() {
        assert_eq!(Filter::default().max_level(), LevelFilter::INFO);
        let error = "a=loud".parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("a=loud"), "{error}");
    }
}

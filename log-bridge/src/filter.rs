//! Which events a worker sends.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use serde_core::de::Error as _;
use serde_core::{Deserialize, Deserializer, Serialize, Serializer};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{LevelFilter, Metadata, dispatcher};
use tracing_subscriber::filter::Targets;

use crate::wire::bytes::ByteReader;
use crate::wire::error::Malformed;

pub(crate) mod env_filter;
pub(crate) mod text;
pub(crate) mod update;

/// The index of a level filter is its position: 0 is off, 5 is TRACE.
const LEVEL_FILTERS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// A maximum level, and other maximum levels for some targets. An event that it rejects costs the worker a level check.
///
/// A directive applies to all targets that start with its own; if there are several, the longest one applies. A filter
/// reaches its worker through serde, or while the worker runs through [`Collector::set_filter`](crate::Collector::set_filter).
///
/// ```
/// use log_bridge::Filter;
/// use tracing::level_filters::LevelFilter;
/// let filter = Filter::new(LevelFilter::INFO).target("hyper", LevelFilter::WARN);
/// assert_eq!(filter, "info,hyper=warn".parse().unwrap());
/// assert_eq!(filter.max_level(), LevelFilter::INFO);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    default: LevelFilter,
    /// Spans up to this level pass whatever their target.
    spans: LevelFilter,
    /// The longest target first.
    directives: Vec<Directive>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Directive {
    target: String,
    level: LevelFilter,
}

/// The text is not a filter.
pub struct ParseFilterError {
    text: String,
    source: tracing_subscriber::filter::ParseError,
}

impl fmt::Display for ParseFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid log filter {:?}: give a level, or TARGET=LEVEL, separated by commas",
            self.text
        )
    }
}

impl Error for ParseFilterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl Filter {
    /// Returns a filter for everything up to `level`.
    pub fn new(level: LevelFilter) -> Self {
        Self {
            default: level,
            spans: LevelFilter::OFF,
            directives: Vec::new(),
        }
    }

    /// Returns a filter that rejects everything.
    pub fn off() -> Self {
        Self::new(LevelFilter::OFF)
    }

    /// Returns a filter for the maximum level that this process's subscribers enable now.
    ///
    /// In a process without a subscriber, which may still set one, that is the maximum level of the `log` crate's logger
    /// (with the feature `log`), or INFO if there is no logger either.
    pub fn current() -> Self {
        Self::new(current_level())
    }

    /// Applies `level` to targets that start with `target`.
    pub fn target(mut self, target: impl Into<String>, level: LevelFilter) -> Self {
        let target = target.into();
        self.directives.retain(|directive| directive.target != target);
        self.directives.push(Directive { target, level });
        self.sorted()
    }

    /// Replaces all directives. Of several for one target, the first one applies.
    fn directives(mut self, directives: Vec<Directive>) -> Self {
        self.directives = directives;
        let mut sorted = self.sorted();
        sorted.directives.dedup_by(|a, b| a.target == b.target);
        sorted
    }

    fn sorted(mut self) -> Self {
        self.directives.sort_by(|a, b| {
            b.target
                .len()
                .cmp(&a.target.len())
                .then_with(|| a.target.cmp(&b.target))
        });
        self
    }

    /// Lets spans up to `level` pass whatever their target, in addition to those that the other levels let pass.
    ///
    /// A leader whose filter matches spans needs it: otherwise a worker does not send a span whose target its filter rejects.
    pub fn spans(mut self, level: LevelFilter) -> Self {
        self.spans = level;
        self
    }

    /// Applies `level` to all targets without a directive.
    fn default_level(mut self, level: LevelFilter) -> Self {
        self.default = level;
        self
    }

    /// Lets pass what this filter lets pass, and everything up to `level`.
    fn at_least(mut self, level: LevelFilter) -> Self {
        self.default = self.default.max(level);
        for directive in &mut self.directives {
            directive.level = directive.level.max(level);
        }
        self
    }

    /// Lets pass what either filter lets pass.
    fn union(self, other: Self) -> Self {
        // The longest directive of both filters that matches a target decides. All others that match the target match the
        // longest one as well, so each filter has the same level for both.
        let targets = self.directives.iter().chain(&other.directives);
        let levels: Vec<_> = targets
            .map(|Directive { target, .. }| (target, self.level_for(target).max(other.level_for(target))))
            .collect();
        let both = Self::new(self.default.max(other.default)).spans(self.spans.max(other.spans));
        levels
            .into_iter()
            .fold(both, |both, (target, level)| both.target(target, level))
    }

    /// Returns the most verbose level that any span or event may have.
    #[must_use]
    pub fn max_level(&self) -> LevelFilter {
        self.max_event_level().max(self.spans)
    }

    /// Returns the most verbose level that any event may have.
    pub(crate) fn max_event_level(&self) -> LevelFilter {
        self.directives
            .iter()
            .map(|directive| directive.level)
            .fold(self.default, Ord::max)
    }

    /// Returns whether an event or span with this metadata is sent.
    #[must_use]
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.level_for(metadata.target());
        *metadata.level() <= level || (metadata.is_span() && *metadata.level() <= self.spans)
    }

    fn level_for(&self, target: &str) -> LevelFilter {
        self.directives
            .iter()
            .find(|directive| target.starts_with(&directive.target))
            .map_or(self.default, |directive| directive.level)
    }

    /// Encodes the default level and that of spans, then each directive: level, length of the target, target.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![index_of(self.default), index_of(self.spans)];
        for Directive { target, level } in &self.directives {
            out.push(index_of(*level));
            out.extend_from_slice(&(target.len() as u16).to_le_bytes());
            out.extend_from_slice(target.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let level = |reader: &mut ByteReader<'_>| {
            let index = reader.u8()?;
            LEVEL_FILTERS
                .get(usize::from(index))
                .copied()
                .ok_or(Malformed::Level(index))
        };
        let mut reader = ByteReader::new(bytes);
        let mut filter = Self::new(level(&mut reader)?).spans(level(&mut reader)?);
        while reader.end().is_err() {
            let level = level(&mut reader)?;
            filter = filter.target(reader.text()?, level);
        }
        Ok(filter)
    }
}

impl Default for Filter {
    /// Returns a filter for everything up to INFO.
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

impl From<&Filter> for Targets {
    fn from(filter: &Filter) -> Self {
        let directives = filter.directives.iter();
        Targets::new()
            .with_default(filter.default)
            .with_targets(directives.map(|directive| (directive.target.clone(), directive.level)))
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
    /// Writes the filter as [`FromStr`] reads it; the level of [`spans`](Filter::spans) is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.directives
            .iter()
            .try_for_each(|directive| write!(f, ",{}={}", directive.target, directive.level))
    }
}

/// Returns the index of a level filter.
fn index_of(level: LevelFilter) -> u8 {
    let index = LEVEL_FILTERS.iter().position(|other| *other == level);
    index.unwrap_or_default() as u8
}

/// See [`Filter::current`].
fn current_level() -> LevelFilter {
    let current = LevelFilter::current();
    let none = dispatcher::get_default(|dispatch| dispatch.is::<NoSubscriber>());
    match current {
        LevelFilter::OFF if none => logger_level().unwrap_or(LevelFilter::INFO),
        current => current,
    }
}

/// Returns the maximum level of the `log` crate's logger, if one is set.
#[cfg(feature = "log")]
fn logger_level() -> Option<LevelFilter> {
    use tracing_log::{AsTrace, log};
    let level = log::max_level();
    (level != log::LevelFilter::Off).then(|| level.as_trace())
}

#[cfg(not(feature = "log"))]
fn logger_level() -> Option<LevelFilter> {
    None
}

/// As a tuple: the index of the default level, that of spans, and pairs of a target and the index of its level.
impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |Directive { target, level }| (target, index_of(level));
        let directives: Vec<(String, u8)> = self.directives.iter().cloned().map(pair).collect();
        (index_of(self.default), index_of(self.spans), directives).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (default, spans, directives) = <(u8, u8, Vec<(String, u8)>)>::deserialize(deserializer)?;
        let level = |index: u8| {
            let level = LEVEL_FILTERS.get(usize::from(index)).copied();
            level.ok_or_else(|| D::Error::custom(format_args!("unknown level filter {index}")))
        };
        let mut read = Vec::new();
        for (target, index) in directives {
            let level = level(index)?;
            read.push(Directive { target, level });
        }
        Ok(Self::new(level(default)?).spans(level(spans)?).directives(read))
    }
}

shm_buffers::debug_with_causes!(ParseFilterError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_matching_target_decides() {
        let filter: Filter = "warn,a=trace,a::b=off".parse().unwrap();
        assert_eq!(filter.level_for("c"), LevelFilter::WARN);
        assert_eq!(filter.level_for("a::c"), LevelFilter::TRACE);
        assert_eq!(filter.level_for("a::b::c"), LevelFilter::OFF);
        assert_eq!(filter.max_level(), LevelFilter::TRACE);
        assert_eq!(filter.to_string(), "warn,a::b=off,a=trace");
    }

    #[test]
    fn a_filter_survives_serde_and_its_own_encoding() {
        let filter = Filter::new(LevelFilter::OFF)
            .target("x", LevelFilter::DEBUG)
            .spans(LevelFilter::TRACE);
        let bytes = postcard::to_stdvec(&filter).unwrap();
        assert_eq!(postcard::from_bytes::<Filter>(&bytes).unwrap(), filter);
        assert!(postcard::from_bytes::<Filter>(&[6, 0, 0]).is_err());
        let bytes = filter.encode();
        assert_eq!(Filter::decode(&bytes).unwrap(), filter);
        assert!((0..bytes.len()).all(|len| len == 2 || Filter::decode(&bytes[..len]).is_err()));
        assert_eq!(Filter::decode(&[6]), Err(Malformed::Level(6)));
        let targets = filter.spans(LevelFilter::OFF);
        assert_eq!(Filter::from(Targets::from(&targets)), targets);
    }

    #[test]
    fn a_union_lets_pass_what_either_filter_does() {
        let one: Filter = "warn,a=trace,a::b=off".parse().unwrap();
        let other: Filter = "error,a::b::c=info,b=debug".parse().unwrap();
        let both = one.clone().union(other.clone());
        for target in ["c", "a", "a::b", "a::b::c::d", "b", "a::b::d"] {
            let level = one.level_for(target).max(other.level_for(target));
            assert_eq!(both.level_for(target), level, "{target}");
        }
    }

    #[test]
    fn the_default_is_info_and_an_invalid_level_is_an_error() {
        assert_eq!(Filter::default().max_level(), LevelFilter::INFO);
        let error = "a=loud".parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("a=loud"), "{error}");
    }
}

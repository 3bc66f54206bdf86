//! Which events a worker sends: the leader's wish, pushed down.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{LevelFilter, Metadata, dispatcher};
use tracing_subscriber::filter::Targets;

use crate::cover;
use crate::reader::Reader;
use crate::wire::Flaw;

/// [`LevelFilter`] as a number.
const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

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
    /// For spans of any target, at least.
    #[serde(with = "level")]
    spans: LevelFilter,
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
#[derive(thiserror::Error)]
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
            spans: LevelFilter::OFF,
            directives: Vec::new(),
        }
    }

    /// Nothing at all.
    pub fn off() -> Self {
        Self::new(LevelFilter::OFF)
    }

    /// The maximum level of this process's subscribers.
    ///
    /// A process without any subscriber may get one later: until then it wants INFO or, with the feature `log`, what the
    /// logger of the `log` crate wants.
    pub fn wanted() -> Self {
        Self::new(wanted())
    }

    /// Covers the directives of an `EnvFilter`, such as `RUST_LOG` holds, so that the leader's `EnvFilter` decides as if
    /// workers sent everything.
    ///
    /// Directives for targets are taken as they are; without a level they mean TRACE. One for a span or a field
    /// (`[span{field=value}]=level`) may want events of any target, so it raises all levels to its own and lets all
    /// [spans](Self::spans) through. Without directives, as when `RUST_LOG` is unset, and in addition to them when one is
    /// rejected, it is what the process's subscribers [want](Self::wanted). So call it once they are set.
    ///
    /// It may let more through than the `EnvFilter`, never less: the tests compare them over generated directives. For an
    /// `EnvFilter` with further directives of the program's own, pass its text: `Filter::covering(&filter.to_string())`.
    ///
    /// ```
    /// use log_bridge::Filter;
    /// let filter = Filter::covering("warn,my_crate=debug,[user{id=7}]=info");
    /// assert_eq!(filter.to_string(), "info,my_crate=debug");
    /// ```
    pub fn covering(directives: &str) -> Self {
        cover::covering(directives, wanted())
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

    /// Spans up to `level` of any target, in addition to those that [`target`](Self::target) and the general level let
    /// through. A leader whose filter looks at spans needs those that no event of theirs would bring along.
    #[must_use]
    pub fn spans(mut self, level: LevelFilter) -> Self {
        self.spans = level;
        self
    }

    /// Everything up to `level` from all targets that are not named.
    pub(crate) fn others(mut self, level: LevelFilter) -> Self {
        self.default = level;
        self
    }

    /// Everything that it lets through, and everything up to `level`.
    pub(crate) fn at_least(mut self, level: LevelFilter) -> Self {
        self.default = self.default.max(level);
        for directive in &mut self.directives {
            directive.level = directive.level.max(level);
        }
        self
    }

    /// What either lets through.
    pub(crate) fn union(self, other: Self) -> Self {
        // The longest matching target of both filters decides: a shorter one that matches a text matches that target, too.
        let targets = self.directives.iter().chain(&other.directives);
        let levels: Vec<_> = targets
            .map(|Directive { target, .. }| (target, self.level_for(target).max(other.level_for(target))))
            .collect();
        let both = Self::new(self.default.max(other.default)).spans(self.spans.max(other.spans));
        levels
            .into_iter()
            .fold(both, |both, (target, level)| both.target(target, level))
    }

    /// The most verbose level that any span or event may have.
    pub fn max_level(&self) -> LevelFilter {
        self.max_event_level().max(self.spans)
    }

    /// The most verbose level that any event may have.
    pub(crate) fn max_event_level(&self) -> LevelFilter {
        self.directives
            .iter()
            .map(|directive| directive.level)
            .fold(self.default, Ord::max)
    }

    /// Whether an event or span with this metadata is sent.
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.level_for(metadata.target());
        *metadata.level() <= level || (metadata.is_span() && *metadata.level() <= self.spans)
    }

    /// The level of all others and that of spans, then level and length of each target before the target.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![index_of(self.default), index_of(self.spans)];
        for Directive { target, level } in &self.directives {
            out.push(index_of(*level));
            out.extend_from_slice(&(target.len() as u16).to_le_bytes());
            out.extend_from_slice(target.as_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        let level = |reader: &mut Reader<'_>| {
            let index = reader.u8()?;
            LEVELS.get(usize::from(index)).copied().ok_or(Flaw::Level(index))
        };
        let mut reader = Reader::new(bytes);
        let mut filter = Self::new(level(&mut reader)?).spans(level(&mut reader)?);
        while reader.end().is_err() {
            let level = level(&mut reader)?;
            filter = filter.target(reader.text()?, level);
        }
        Ok(filter)
    }

    pub(crate) fn level_for(&self, target: &str) -> LevelFilter {
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.directives
            .iter()
            .try_for_each(|directive| write!(f, ",{}={}", directive.target, directive.level))
    }
}

fn index_of(level: LevelFilter) -> u8 {
    let index = LEVELS.iter().position(|known| *known == level);
    index.unwrap_or_default() as u8
}

/// The maximum level of this process's subscribers.
fn wanted() -> LevelFilter {
    let current = LevelFilter::current();
    let none = dispatcher::get_default(|dispatch| dispatch.is::<NoSubscriber>());
    match current {
        LevelFilter::OFF if none => logger_wants().unwrap_or(LevelFilter::INFO),
        current => current,
    }
}

/// The maximum level of the `log` crate's logger, if there is one.
#[cfg(feature = "log")]
fn logger_wants() -> Option<LevelFilter> {
    use tracing_log::{AsTrace, log};
    let level = log::max_level();
    (level != log::LevelFilter::Off).then(|| level.as_trace())
}

#[cfg(not(feature = "log"))]
fn logger_wants() -> Option<LevelFilter> {
    None
}

/// [`LevelFilter`] as a number: 0 is off, 5 is TRACE.
mod level {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tracing_core::LevelFilter;

    use super::{LEVELS, index_of};

    pub(super) fn serialize<S: Serializer>(level: &LevelFilter, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(index_of(*level))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LevelFilter, D::Error> {
        let index = u8::deserialize(deserializer)?;
        LEVELS
            .get(usize::from(index))
            .copied()
            .ok_or_else(|| D::Error::custom(format_args!("unknown level filter {index}")))
    }
}

shm_buffers::debug_with_causes!(ParseFilterError);

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
        let filter = Filter::new(LevelFilter::OFF)
            .target("x", LevelFilter::DEBUG)
            .spans(LevelFilter::TRACE);
        let bytes = postcard::to_stdvec(&filter).unwrap();
        assert_eq!(postcard::from_bytes::<Filter>(&bytes).unwrap(), filter);
        assert!(postcard::from_bytes::<Filter>(&[6, 0, 0]).is_err());
        let bytes = filter.encode();
        assert_eq!(Filter::decode(&bytes).unwrap(), filter);
        assert!((0..bytes.len()).all(|len| len == 2 || Filter::decode(&bytes[..len]).is_err()));
        assert_eq!(Filter::decode(&[6]), Err(Flaw::Level(6)));
        let targets = filter.spans(LevelFilter::OFF);
        assert_eq!(Filter::from(Targets::from(&targets)), targets);
    }

    #[test]
    fn a_union_lets_through_what_either_does() {
        let one: Filter = "warn,a=trace,a::b=off".parse().unwrap();
        let other: Filter = "error,a::b::c=info,b=debug".parse().unwrap();
        let both = one.clone().union(other.clone());
        for target in ["c", "a", "a::b", "a::b::c::d", "b", "a::b::d"] {
            let level = one.level_for(target).max(other.level_for(target));
            assert_eq!(both.level_for(target), level, "{target}");
        }
    }

    #[test]
    fn defaults_and_nonsense() {
        assert_eq!(Filter::default().max_level(), LevelFilter::INFO);
        let error = "a=loud".parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("a=loud"), "{error}");
    }
}

//! Which events a worker sends: the leader's wish, pushed down.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_core::{LevelFilter, Metadata};
use tracing_subscriber::filter::Targets;

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

    /// The least that covers the directives of an `EnvFilter`, such as `RUST_LOG` holds, so that the leader's
    /// `EnvFilter` decides as if workers sent everything.
    ///
    /// Directives for targets are taken as they are. One for a span (`[span{field=value}]=level`) may want events of
    /// any target in that span, so it raises all levels to its own. What can't be understood is ignored, as `EnvFilter`
    /// does.
    ///
    /// ```
    /// use log_bridge::Filter;
    /// let filter = Filter::covering("warn,my_crate=debug,[user{id=7}]=info");
    /// assert_eq!(filter.to_string(), "info,my_crate=debug");
    /// ```
    pub fn covering(directives: &str) -> Self {
        let mut filter = Self::off();
        let mut least = LevelFilter::OFF;
        let mut depth = 0_usize;
        let parts = directives.split(|c: char| {
            depth = match c {
                '[' | '{' => depth + 1,
                ']' | '}' => depth.saturating_sub(1),
                _ => depth,
            };
            depth == 0 && c == ','
        });
        let mut any = false;
        for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
            if part.contains('[') {
                let level = part
                    .rsplit_once("]=")
                    .map_or(Ok(LevelFilter::TRACE), |(_, level)| level.parse());
                least = least.max(level.unwrap_or(LevelFilter::OFF));
                any = true;
                continue;
            }
            match directive(part) {
                Some((Some(target), level)) => filter = filter.target(target, level),
                Some((None, level)) => filter.default = level,
                None => continue,
            }
            any = true;
        }
        if !any {
            // An empty `EnvFilter` lets errors pass.
            filter.default = LevelFilter::ERROR;
        }
        filter.default = filter.default.max(least);
        for directive in &mut filter.directives {
            directive.level = directive.level.max(least);
        }
        filter
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

    /// The level of all others, then level and length of each target before the target.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![index_of(self.default)];
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
        let mut filter = Self::new(level(&mut reader)?);
        while reader.end().is_err() {
            let level = level(&mut reader)?;
            filter = filter.target(reader.text()?, level);
        }
        Ok(filter)
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

/// What an `EnvFilter` says of one target, if anything.
fn directive(text: &str) -> Option<(Option<&str>, LevelFilter)> {
    let (target, level) = match text.rsplit_once('=') {
        Some((target, level)) => (Some(target), level.parse().ok()?),
        None => match text.parse() {
            Ok(level) => (None, level),
            Err(_) => (Some(text), LevelFilter::TRACE),
        },
    };
    Some((target.filter(|target| !target.is_empty()), level))
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
        let bytes = filter.encode();
        assert_eq!(Filter::decode(&bytes).unwrap(), filter);
        assert!((0..bytes.len()).all(|len| len == 1 || Filter::decode(&bytes[..len]).is_err()));
        assert_eq!(Filter::decode(&[6]), Err(Flaw::Level(6)));
        assert_eq!(Filter::from(Targets::from(&filter)), filter);
    }

    #[test]
    fn an_env_filter_is_covered() {
        for (directives, expected) in [
            ("", "error"),
            ("debug", "debug"),
            ("info,a::b=off,c", "info,a::b=off,c=trace"),
            ("a=warn,[s]", "trace,a=trace"),
            ("off,t[s{x=1,y=\"a,b\"}]=info,a=debug", "info,a=debug"),
            ("x=loud", "error"),
        ] {
            assert_eq!(Filter::covering(directives).to_string(), expected, "{directives}");
        }
    }

    #[test]
    fn defaults_and_nonsense() {
        assert_eq!(Filter::default().max_level(), LevelFilter::INFO);
        let error = "a=loud".parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("a=loud"), "{error}");
    }
}

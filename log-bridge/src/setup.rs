//! Subscribers for leaders, ready made: a terminal, JSON lines, rolling files.
//!
//! Each shows the time of emission of what workers logged, and takes the [`Filter`] that is to be pushed down to the
//! workers, too. Whoever wants more combines the layers of `tracing-subscriber` himself.
//!
//! ```
//! use log_bridge::{Filter, setup};
//! let filter: Filter = "info,my_crate=debug".parse()?;
//! // `std::io::stderr`, or the writer of a progress bar's that keeps lines from garbling it.
//! let subscriber = setup::terminal(&filter, std::io::stderr, setup::Color::Auto);
//! tracing::subscriber::with_default(subscriber, || tracing::info!("ready"));
//! # Ok::<(), log_bridge::ParseFilterError>(())
//! ```

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_core::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{Layer, fmt as layers, layer::SubscriberExt};

use crate::filter::Filter;
use crate::time::EmissionTime;

/// Whether lines are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// If standard error is a terminal, `NO_COLOR` is not set, and `TERM` is not `dumb`.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

impl Color {
    fn is_on(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
                !refused && !dumb && io::stderr().is_terminal()
            }
        }
    }
}

/// Lines for people, into `writer`.
pub fn terminal<W>(filter: &Filter, writer: W, color: Color) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = layers::layer()
        .with_timer(EmissionTime)
        .with_ansi(color.is_on())
        .with_writer(writer);
    tracing_subscriber::registry().with(layer.with_filter(Targets::from(filter)))
}

/// One JSON object a line, into `writer`.
pub fn json_lines<W>(filter: &Filter, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = layers::layer()
        .json()
        .with_timer(EmissionTime)
        .with_writer(writer);
    tracing_subscriber::registry().with(layer.with_filter(Targets::from(filter)))
}

/// When a new file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Roll {
    /// Every hour.
    Hourly,
    /// Every day.
    #[default]
    Daily,
    /// Never: one file.
    Never,
}

/// What a line of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// Settings of rolling files, written by a thread of `tracing-appender`'s.
#[derive(Debug, Clone)]
#[must_use]
pub struct Files {
    directory: PathBuf,
    prefix: String,
    roll: Roll,
    keep: Option<usize>,
    format: Format,
}

/// Rolling files could not be set up.
#[derive(thiserror::Error)]
#[error("cannot write log files to {}", directory.display())]
pub struct FilesError {
    directory: PathBuf,
    source: tracing_appender::rolling::InitError,
}

/// Writes what is left when it is dropped; to be kept until the end of `main`.
#[must_use = "what is not written when it is dropped is lost"]
pub struct FilesGuard {
    _thread: WorkerGuard,
    lost: ErrorCounter,
}

impl FilesGuard {
    /// Lines that the disk was too slow for.
    pub fn lost_lines(&self) -> usize {
        self.lost.dropped_lines()
    }
}

impl fmt::Debug for FilesGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesGuard")
            .field("lost_lines", &self.lost_lines())
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Files `prefix.DATE.log` in `directory`, which is created if need be; one a day, text, none is removed.
    pub fn new(directory: impl AsRef<Path>, prefix: impl Into<String>) -> Self {
        Self {
            directory: directory.as_ref().to_owned(),
            prefix: prefix.into(),
            roll: Roll::default(),
            keep: None,
            format: Format::default(),
        }
    }

    /// When a new file is begun; default: daily.
    pub fn roll(mut self, roll: Roll) -> Self {
        self.roll = roll;
        self
    }

    /// How many files are kept; default: all.
    pub fn keep(mut self, files: usize) -> Self {
        self.keep = Some(files);
        self
    }

    /// What a line is; default: text.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The subscriber, and the guard to keep.
    ///
    /// # Errors
    /// If the directory or the file can't be created.
    pub fn build(
        self,
        filter: &Filter,
    ) -> Result<(impl Subscriber + Send + Sync + use<>, FilesGuard), FilesError> {
        let mut files = RollingFileAppender::builder()
            .filename_prefix(self.prefix)
            .filename_suffix("log")
            .rotation(match self.roll {
                Roll::Hourly => Rotation::HOURLY,
                Roll::Daily => Rotation::DAILY,
                Roll::Never => Rotation::NEVER,
            });
        if let Some(keep) = self.keep {
            files = files.max_log_files(keep);
        }
        let files = files.build(&self.directory).map_err(|source| FilesError {
            directory: self.directory,
            source,
        })?;
        let (writer, thread) = tracing_appender::non_blocking(files);
        let lost = writer.error_counter();
        let layer = layers::layer()
            .with_timer(EmissionTime)
            .with_ansi(false)
            .with_writer(writer);
        let layer = match self.format {
            Format::Text => layer.boxed(),
            Format::Json => layer.json().boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(Targets::from(filter)));
        Ok((
            subscriber,
            FilesGuard {
                _thread: thread,
                lost,
            },
        ))
    }
}

shm_buffers::debug_with_causes!(FilesError);

//! The configuration of a reporter.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::Reporter;
use super::shared::SharedDisplay;
use super::test_screen::{SharedText, TestScreen};
use crate::config::choices::{Color, Render};
use crate::config::disable::is_drawing_disabled;
use crate::config::environment::Environment;
use crate::output::Output;
use crate::render::{Json, Lines, Renderer, Schedule};
use crate::time::clock::Clock;

/// The error of starting a [`Reporter`].
#[non_exhaustive]
pub enum StartError {
    /// The system could not start the drawing thread.
    Thread(io::Error),
    /// [`Render::Bar`] needs the feature `indicatif`.
    BarsUnavailable,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread(_) => "cannot start the thread that draws progress",
            Self::BarsUnavailable => {
                "cannot draw progress bars: built without the feature `indicatif`; ask for lines instead"
            }
        })
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Thread(source) => Some(source),
            Self::BarsUnavailable => None,
        }
    }
}

/// The configuration of a [`Reporter`]; returned by [`Reporter::builder`].
#[derive(Debug)]
#[must_use = "call `start`"]
pub struct ReporterBuilder {
    render: Render,
    color: Color,
    output: Option<Output>,
    columns: Option<u16>,
    rows: Option<u16>,
    line_interval: Duration,
}

impl ReporterBuilder {
    pub(super) fn new() -> Self {
        Self {
            render: Render::default(),
            color: Color::default(),
            output: None,
            columns: None,
            rows: None,
            line_interval: Duration::from_secs(10),
        }
    }

    /// Sets how bars are shown. Default: [`Render::Auto`].
    pub fn render(mut self, render: Render) -> Self {
        self.render = render;
        self
    }

    /// Sets whether bars have colours. Default: [`Color::Auto`].
    pub fn color(mut self, color: Color) -> Self {
        self.color = color;
        self
    }

    /// Draws to `output` instead of standard error. The reporter does not treat it as a terminal.
    ///
    /// A thread of the reporter writes to `output`. If a write blocks, it blocks only that thread. If a write fails or
    /// panics, only its lines are lost.
    pub fn output(mut self, output: impl Write + Send + 'static) -> Self {
        self.output = Some(Output::queued(Box::new(output)));
        self
    }

    /// Sets the number of columns for bars if the output is not a terminal that reports its size. Default: the
    /// environment variable `COLUMNS` for standard error, else 80. A value of zero is ignored, here and in the
    /// variable.
    pub fn columns(mut self, columns: u16) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Sets the number of rows for bars if the output is not a terminal that reports its size. The last row shows the
    /// number of bars that do not fit. Default: the environment variable `LINES` for standard error, else 24. A value
    /// of zero is ignored, here and in the variable.
    pub fn rows(mut self, rows: u16) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Sets the time between two plain or JSON lines of a bar. The first line is written after one second, or after
    /// `interval` if that is shorter. Default: 10 seconds.
    pub fn line_interval(mut self, interval: Duration) -> Self {
        self.line_interval = interval;
        self
    }

    /// Starts drawing. After [`disable_drawing`](crate::disable_drawing), the reporter draws nothing on standard error.
    ///
    /// # Errors
    /// [`StartError::Thread`] if the system could not start a thread, [`StartError::BarsUnavailable`] for
    /// [`Render::Bar`] without the feature `indicatif`.
    pub fn start(self) -> Result<Reporter, StartError> {
        let environment = match self.output {
            Some(_) => Environment::of_writer(),
            None => Environment::of_stderr(),
        };
        let renderer = match self.output {
            None if is_drawing_disabled() => Renderer::Nothing,
            _ => self.renderer(&environment)?,
        };
        let display = match self.output {
            Some(output) => SharedDisplay::new(Clock::real(), renderer, output),
            None if renderer.is_terminal() => SharedDisplay::of_terminal(renderer),
            None => SharedDisplay::new(Clock::real(), renderer, Output::stderr()),
        };
        Reporter::new(display).map_err(StartError::Thread)
    }

    /// Starts a reporter for a test. It draws into memory, only when the [`TestScreen`] advances its clock. The memory
    /// is not a terminal, so [`Render::Auto`] draws lines. An [`output`](Self::output) gets nothing.
    ///
    /// # Errors
    /// [`StartError::BarsUnavailable`] for [`Render::Bar`] without the feature `indicatif`.
    pub fn start_in_memory(self) -> Result<(Reporter, TestScreen), StartError> {
        let written = SharedText::default();
        let output = Output::direct(Box::new(written.clone()));
        let environment = Environment::of_writer();
        let renderer = match self.render {
            Render::Bar => self.bars_in_memory(&environment)?,
            _ => self.renderer(&environment)?,
        };
        let display = SharedDisplay::new(Clock::manual(), renderer, output);
        let screen = TestScreen::new(Arc::clone(&display), written);
        let reporter = Reporter::new(display).map_err(StartError::Thread)?;
        Ok((reporter, screen))
    }

    fn renderer(&self, environment: &Environment) -> Result<Renderer, StartError> {
        let render = match self.render {
            Render::Auto => environment.auto_render(),
            chosen => chosen,
        };
        let schedule = Schedule::new(self.line_interval);
        Ok(match render {
            Render::None => Renderer::Nothing,
            Render::JsonLines => Renderer::Json(Json::new(schedule)),
            Render::Bar => self.bars(environment)?,
            Render::Auto | Render::Lines => Renderer::Lines(Lines::new(schedule)),
        })
    }

    #[cfg(feature = "indicatif")]
    fn bars(&self, environment: &Environment) -> Result<Renderer, StartError> {
        use crate::config::environment::TerminalKind;
        use crate::render::Terminal;

        let style = self.style(environment);
        let size = self.size(environment);
        Ok(Renderer::Terminal(match environment.terminal {
            TerminalKind::Capable | TerminalKind::Dumb => Terminal::stderr(size, style),
            TerminalKind::NotATerminal => Terminal::ansi(size, style),
        }))
    }

    #[cfg(feature = "indicatif")]
    fn bars_in_memory(&self, environment: &Environment) -> Result<Renderer, StartError> {
        let (columns, rows) = self.size(environment);
        let memory = crate::render::Memory::new(self.style(environment), columns, rows);
        Ok(Renderer::Memory(memory))
    }

    /// Returns the columns and rows of an output that does not report them.
    #[cfg(feature = "indicatif")]
    fn size(&self, environment: &Environment) -> (u16, u16) {
        let (columns, rows) = crate::render::DEFAULT_SIZE;
        let nonzero = |size: Option<u16>| size.filter(|size| *size > 0);
        (
            nonzero(self.columns)
                .or(nonzero(environment.columns))
                .unwrap_or(columns),
            nonzero(self.rows).or(nonzero(environment.rows)).unwrap_or(rows),
        )
    }

    #[cfg(feature = "indicatif")]
    fn style(&self, environment: &Environment) -> crate::render::Style {
        use crate::render::{Charset, Palette, Style};

        Style {
            charset: match environment.utf8 {
                true => Charset::Unicode,
                false => Charset::Ascii,
            },
            palette: match environment.has_color(self.color) {
                true => Palette::Ansi,
                false => Palette::Plain,
            },
        }
    }

    #[cfg(not(feature = "indicatif"))]
    fn bars(&self, _: &Environment) -> Result<Renderer, StartError> {
        Err(StartError::BarsUnavailable)
    }

    #[cfg(not(feature = "indicatif"))]
    fn bars_in_memory(&self, _: &Environment) -> Result<Renderer, StartError> {
        Err(StartError::BarsUnavailable)
    }
}

shm_buffers::debug_with_causes!(StartError);

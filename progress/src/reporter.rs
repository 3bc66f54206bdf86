//! Who draws: one thread of the leader that samples bars and shows them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bar::{Bar, Total};
use crate::choice::{Color, Render, Surroundings};
use crate::clock::Clock;
use crate::mute::is_mute;
use crate::output::Output;
use crate::panics;
use crate::rehearsal::{Paper, Rehearsal};
use crate::render::{Json, Lines, Renderer, Schedule};
use crate::shared::{Shared, terminal};
use crate::stage::Member;
use crate::writer::BarWriter;

/// Why a [`Reporter`] did not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The thread that draws could not be made.
    #[error("cannot start the thread that draws progress")]
    Thread(#[source] io::Error),
    /// [`Render::Bar`] was asked for.
    #[error("cannot draw progress bars: built without the feature `indicatif`; ask for lines instead")]
    NoBars,
}

/// How a [`Reporter`] is to draw; made by [`Reporter::builder`].
#[derive(Debug)]
pub struct ReporterBuilder {
    render: Render,
    color: Color,
    output: Option<Output>,
    columns: Option<u16>,
    rows: Option<u16>,
    every: Duration,
}

impl ReporterBuilder {
    /// How bars are shown. Default: [`Render::Auto`].
    pub fn render(mut self, render: Render) -> Self {
        self.render = render;
        self
    }

    /// Whether bars have colours. Default: [`Color::Auto`].
    pub fn color(mut self, color: Color) -> Self {
        self.color = color;
        self
    }

    /// Draws to `output` instead of standard error. It counts as no terminal.
    ///
    /// A thread of the reporter's own writes to it. A writer that blocks blocks only that thread. A writer that fails or
    /// panics loses only what it was given.
    pub fn output(mut self, output: impl Write + Send + 'static) -> Self {
        self.output = Some(Output::given(Box::new(output)));
        self
    }

    /// Columns of what bars are drawn on if it is not a terminal that reports its size. Default: the environment variable
    /// `COLUMNS` for standard error, else 80. Zero is no number of columns, wherever it comes from.
    pub fn columns(mut self, columns: u16) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Rows of it, likewise; bars that do not fit are counted in the last. Default: the environment variable `LINES`
    /// for standard error, else 24.
    pub fn rows(mut self, rows: u16) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Time between two plain or JSON lines of a bar, after a first one that comes within a second. Default: 10
    /// seconds.
    pub fn lines_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Starts drawing. In a process that is [mute](crate::mute), nothing is drawn on standard error.
    ///
    /// # Errors
    /// [`StartError::Thread`] if no thread could be made, [`StartError::NoBars`] if bars were asked for and are not
    /// built in.
    pub fn start(self) -> Result<Reporter, StartError> {
        let surroundings = match self.output {
            Some(_) => Surroundings::of_writer(),
            None => Surroundings::of_stderr(),
        };
        let renderer = match self.output {
            None if is_mute() => Renderer::Nothing,
            _ => self.renderer(&surroundings)?,
        };
        match self.output {
            Some(output) => Shared::new(Clock::running(), renderer, output).join(),
            None if renderer.is_terminal() => terminal::join(renderer),
            None => Shared::new(Clock::running(), renderer, Output::stderr()).join(),
        }
    }

    /// For tests: nothing is drawn but by the [`Rehearsal`], by its clock, into its memory. It is no terminal, so
    /// that [`Render::Auto`] draws lines. An [`output`](Self::output) gets nothing.
    ///
    /// # Errors
    /// [`StartError::NoBars`] as [`start`](Self::start).
    pub fn rehearse(self) -> Result<(Reporter, Rehearsal), StartError> {
        let paper = Paper::default();
        let output = Output::direct(Box::new(paper.clone()));
        let surroundings = Surroundings::of_writer();
        let renderer = match self.render {
            Render::Bar => self.frame(&surroundings)?,
            _ => self.renderer(&surroundings)?,
        };
        let shared = Shared::new(Clock::held(), renderer, output);
        let rehearsal = Rehearsal::new(Arc::clone(&shared), paper);
        Ok((shared.join()?, rehearsal))
    }

    fn renderer(&self, surroundings: &Surroundings) -> Result<Renderer, StartError> {
        let render = match self.render {
            Render::Auto => surroundings.auto(),
            asked => asked,
        };
        Ok(match render {
            Render::None => Renderer::Nothing,
            Render::JsonLines => Renderer::Json(Json::new(Schedule::new(self.every))),
            Render::Bar => self.bars(surroundings)?,
            Render::Auto | Render::Lines => Renderer::Lines(Lines::new(Schedule::new(self.every))),
        })
    }

    #[cfg(feature = "indicatif")]
    fn bars(&self, surroundings: &Surroundings) -> Result<Renderer, StartError> {
        use crate::choice::Screen;
        use crate::render::Terminal;
        let look = self.look(surroundings);
        let size = self.size(surroundings);
        Ok(Renderer::Terminal(match surroundings.screen {
            Screen::Terminal | Screen::DumbTerminal => Terminal::stderr(size, look),
            Screen::NoTerminal => Terminal::ansi(size, look),
        }))
    }

    #[cfg(feature = "indicatif")]
    fn frame(&self, surroundings: &Surroundings) -> Result<Renderer, StartError> {
        let (columns, rows) = self.size(surroundings);
        let frame = crate::render::Frame::new(self.look(surroundings), columns, rows);
        Ok(Renderer::Frame(frame))
    }

    #[cfg(feature = "indicatif")]
    fn size(&self, surroundings: &Surroundings) -> (u16, u16) {
        let (columns, rows) = crate::render::USUAL_SIZE;
        let some = |asked: Option<u16>| asked.filter(|size| *size > 0);
        (
            some(self.columns)
                .or(some(surroundings.columns))
                .unwrap_or(columns),
            some(self.rows).or(some(surroundings.rows)).unwrap_or(rows),
        )
    }

    #[cfg(feature = "indicatif")]
    fn look(&self, surroundings: &Surroundings) -> crate::render::Look {
        use crate::render::{Glyphs, Look, Palette};
        Look {
            glyphs: match surroundings.utf8 {
                true => Glyphs::Unicode,
                false => Glyphs::Ascii,
            },
            palette: match surroundings.has_color(self.color) {
                true => Palette::Ansi,
                false => Palette::Plain,
            },
        }
    }

    #[cfg(not(feature = "indicatif"))]
    fn bars(&self, _: &Surroundings) -> Result<Renderer, StartError> {
        Err(StartError::NoBars)
    }

    #[cfg(not(feature = "indicatif"))]
    fn frame(&self, _: &Surroundings) -> Result<Renderer, StartError> {
        Err(StartError::NoBars)
    }
}

/// Draws bars until it is finished or dropped. Only the leader has one.
///
/// It samples at most ten times a second; writers never wait for it, nor know of it.
///
/// **Nothing that happens to the terminal happens to the job.** Standard error may be closed, full, a terminal that is gone,
/// or one that takes nothing (an unread pipe, Ctrl-S): progress that cannot be drawn is not drawn, without an error. Calls
/// wait for the terminal a quarter of a second, and the reporter's end waits a second; after that they no longer wait, and
/// lines stay in a queue until the terminal takes them. In the background, no bars are drawn, and lines do not stop the job, whatever
/// `stty tostop` says.
///
/// **Time** stands still while the process is stopped (by Ctrl-Z, or with its container or machine), so a rate or an ETA
/// is that of the time in which the job ran.
///
/// **Several reporters** on one terminal, such as those of two invokers that run at the same time, draw together, as the first
/// of them was asked to.
///
/// Dropping it stops it: bars that ended get their last line, those that still run are taken off the terminal without a word.
/// It belongs to the process that started it: a copy in a forked child draws nothing, also when it is finished or dropped.
///
/// ```
/// use progress::{Outcome, Render, Reporter, Total};
/// let reporter = Reporter::builder().render(Render::None).start()?;
/// let bar = reporter.bar("recommend", Total::Known(1000));
/// let counters = bar.counters();
/// for _ in 0..1000 {
///     counters.counter(Outcome::Done).inc();
/// }
/// reporter.finish(); // draws the last state
/// # Ok::<(), progress::StartError>(())
/// ```
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    member: Member,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Ended,
}

impl Reporter {
    pub(crate) fn new(shared: Arc<Shared>, member: Member) -> Self {
        Self {
            shared,
            member,
            life: Life::Running,
        }
    }

    /// Draws as [`Render::Auto`] does, to standard error, unless told otherwise.
    pub fn builder() -> ReporterBuilder {
        ReporterBuilder {
            render: Render::default(),
            color: Color::default(),
            output: None,
            columns: None,
            rows: None,
            every: Duration::from_secs(10),
        }
    }

    /// Makes a bar and shows it below the others.
    pub fn bar(&self, label: impl Into<String>, total: Total) -> Bar {
        let bar = Bar::new(label, total);
        self.add(&bar);
        bar
    }

    /// Shows `bar` below the others. Its time and rate count from here. A bar that is shown already stays.
    pub fn add(&self, bar: &Bar) {
        let now = self.shared.now();
        self.shared.stage().add(now, bar, None, self.member);
    }

    /// Shows `bar` nested in `parent`, or below the others if that is not shown.
    pub fn add_within(&self, parent: &Bar, bar: &Bar) {
        let now = self.shared.now();
        self.shared.stage().add(now, bar, Some(parent), self.member);
    }

    /// A writer for log lines that never garbles bars. It may outlive the reporter.
    pub fn writer(&self) -> BarWriter {
        BarWriter::new(Arc::clone(&self.shared))
    }

    /// Clears the bars off the screen while `f` writes to it by itself, say to standard output. `f` may take its
    /// time, log, and panic.
    pub fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Resume<'a>(&'a Shared);
        impl Drop for Resume<'_> {
            fn drop(&mut self) {
                self.0.resume();
            }
        }
        self.shared.stage().suspend();
        let _resume = Resume(&self.shared);
        f()
    }

    /// Clears the bars off the screen while a panic of any thread of this process is reported, as
    /// [`suspend`](Self::suspend) does. Otherwise the next drawing erases the panic's message.
    ///
    /// The first call in a process sets a panic hook that calls the one that was set before. A program that sets a hook of its
    /// own sets it first.
    ///
    /// ```
    /// # use progress::{Render, Reporter};
    /// let reporter = Reporter::builder().render(Render::None).start()?;
    /// reporter.guard_panics();
    /// # Ok::<(), progress::StartError>(())
    /// ```
    pub fn guard_panics(&self) {
        panics::guard(&self.shared);
    }

    /// Ends all bars, draws their last state and stops.
    pub fn finish(mut self) {
        self.end(End::Finish(Instant::now()));
    }

    fn end(&mut self, end: End) {
        match std::mem::replace(&mut self.life, Life::Ended) {
            Life::Ended => {}
            Life::Running if self.shared.is_of_this_process() => self.shared.leave(self.member, end),
            // A forked child has a copy of the thread's handle and no thread, which may have held any lock.
            Life::Running => std::mem::forget(Arc::clone(&self.shared)),
        }
    }
}

/// How a reporter ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Finish(Instant),
    Abandon,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.end(End::Abandon);
    }
}

shm_buffers::debug_with_causes!(StartError);

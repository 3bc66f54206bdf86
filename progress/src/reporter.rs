//! Who draws: one thread of the leader that samples bars and shows them.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bar::{Bar, Total};
use crate::choice::{Color, Render, Surroundings};
use crate::clock::Clock;
use crate::output::Output;
use crate::rehearsal::{Paper, Rehearsal};
use crate::render::{Json, Lines, Renderer, Schedule};
use crate::stage::Stage;
use crate::writer::BarWriter;

/// Why a [`Reporter`] did not start.
#[derive(Debug, thiserror::Error)]
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
    pub fn output(mut self, output: impl Write + Send + 'static) -> Self {
        self.output = Some(Output::given(Box::new(output)));
        self
    }

    /// Columns of what bars are drawn on if it is not a terminal that tells. Default: the environment variable
    /// `COLUMNS` for standard error, else 80.
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

    /// Starts drawing.
    ///
    /// # Errors
    /// [`StartError::Thread`] if no thread could be made, [`StartError::NoBars`] if bars were asked for and are not
    /// built in.
    pub fn start(self) -> Result<Reporter, StartError> {
        let surroundings = match self.output {
            Some(_) => Surroundings::of_writer(),
            None => Surroundings::of_stderr(),
        };
        let output = self.output.clone().unwrap_or_else(Output::stderr);
        let renderer = self.renderer(&surroundings, &output)?;
        let shared = Shared::new(Clock::running(), Stage::new(renderer, output));
        let thread = match shared.stage().interval() {
            None => None,
            Some(interval) => {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name("progress".into());
                Some(
                    thread
                        .spawn(move || shared.draw_until_stopped(interval))
                        .map_err(StartError::Thread)?,
                )
            }
        };
        let maker = std::process::id();
        Ok(Reporter {
            shared,
            thread,
            maker,
        })
    }

    /// For tests: nothing is drawn but by the [`Rehearsal`], by its clock, into its memory. It is no terminal, so
    /// that [`Render::Auto`] draws lines. An [`output`](Self::output) gets nothing.
    ///
    /// # Errors
    /// [`StartError::NoBars`] as [`start`](Self::start).
    pub fn rehearse(self) -> Result<(Reporter, Rehearsal), StartError> {
        let paper = Paper::default();
        let output = Output::given(Box::new(paper.clone()));
        let surroundings = Surroundings::of_writer();
        let renderer = match self.render {
            Render::Bar => self.frame(&surroundings)?,
            _ => self.renderer(&surroundings, &output)?,
        };
        let shared = Shared::new(Clock::held(), Stage::new(renderer, output));
        let rehearsal = Rehearsal::new(Arc::clone(&shared), paper);
        let (thread, maker) = (None, std::process::id());
        Ok((
            Reporter {
                shared,
                thread,
                maker,
            },
            rehearsal,
        ))
    }

    fn renderer(&self, surroundings: &Surroundings, output: &Output) -> Result<Renderer, StartError> {
        let render = match self.render {
            Render::Auto => surroundings.auto(),
            asked => asked,
        };
        Ok(match render {
            Render::None => Renderer::Nothing,
            Render::JsonLines => Renderer::Json(Json::new(Schedule::new(self.every))),
            Render::Bar => self.bars(surroundings, output)?,
            Render::Auto | Render::Lines => Renderer::Lines(Lines::new(Schedule::new(self.every))),
        })
    }

    #[cfg(feature = "indicatif")]
    fn bars(&self, surroundings: &Surroundings, output: &Output) -> Result<Renderer, StartError> {
        use crate::choice::Screen;
        use crate::render::Terminal;
        let look = self.look(surroundings);
        Ok(Renderer::Terminal(match surroundings.screen {
            Screen::Terminal => Terminal::stderr(look),
            Screen::DumbTerminal | Screen::NoTerminal => {
                let (columns, rows) = self.size(surroundings);
                Terminal::ansi(output.clone(), columns, rows, look)
            }
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
        (
            self.columns.or(surroundings.columns).unwrap_or(80),
            self.rows.or(surroundings.rows).unwrap_or(24),
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
    fn bars(&self, _: &Surroundings, _: &Output) -> Result<Renderer, StartError> {
        Err(StartError::NoBars)
    }

    #[cfg(not(feature = "indicatif"))]
    fn frame(&self, _: &Surroundings) -> Result<Renderer, StartError> {
        Err(StartError::NoBars)
    }
}

/// Draws bars until it is finished or dropped. Nothing but the leader has one.
///
/// It samples at most ten times a second; writers never wait for it, nor know of it. What cannot be drawn (a closed
/// standard error) is not drawn, and no error.
///
/// Dropping it stops it at once: bars that ended get their last line, those that still run are taken off the terminal
/// without a word. It belongs to the process that started it: a copy in a forked child draws nothing, also when it is
/// finished or dropped.
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
    thread: Option<JoinHandle<()>>,
    /// The process whose thread and terminal it is.
    maker: u32,
}

impl Reporter {
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
        self.shared.stage().add(self.shared.clock.now(), bar, None);
    }

    /// Shows `bar` nested in `parent`, or below the others if that is not shown.
    pub fn add_within(&self, parent: &Bar, bar: &Bar) {
        self.shared
            .stage()
            .add(self.shared.clock.now(), bar, Some(parent));
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
                self.0.stage().resume(self.0.clock.now());
            }
        }
        self.shared.stage().suspend();
        let _resume = Resume(&self.shared);
        f()
    }

    /// Ends all bars, draws their last state and stops.
    pub fn finish(mut self) {
        if self.stop() == Stopped::Here {
            self.shared.stage().finish(self.shared.clock.now());
        }
    }

    fn stop(&mut self) -> Stopped {
        if self.maker != std::process::id() {
            // The thread is not here, and may have held any lock.
            std::mem::forget(self.thread.take());
            return Stopped::Copy;
        }
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = Stop::Yes;
        self.shared.stopping.notify_all();
        if let Some(thread) = self.thread.take() {
            // It panics only if the writer it was given did; the job goes on without bars.
            let _ = thread.join();
        }
        Stopped::Here
    }
}

/// Whose reporter `stop` has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Here,
    /// A forked child's copy, which draws nothing.
    Copy,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if self.stop() == Stopped::Here {
            self.shared.stage().abandon(self.shared.clock.now());
        }
    }
}

/// What the handle, the thread and the writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    clock: Clock,
    stage: Mutex<Stage>,
    stop: Mutex<Stop>,
    stopping: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Yes,
}

impl Shared {
    fn new(clock: Clock, stage: Stage) -> Arc<Self> {
        Arc::new(Self {
            clock,
            stage: Mutex::new(stage),
            stop: Mutex::new(Stop::No),
            stopping: Condvar::new(),
        })
    }

    /// For a held clock.
    pub(crate) fn tick(&self, passed: Duration) {
        self.clock.advance(passed);
        self.stage().tick(self.clock.now());
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        self.stage().rows().to_vec()
    }

    pub(crate) fn print(&self, lines: &[u8]) -> io::Result<()> {
        let mut stage = self.stage();
        stage.print(self.clock.now(), lines)
    }

    fn draw_until_stopped(&self, interval: Duration) {
        loop {
            let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
            let (stop, _) = self
                .stopping
                .wait_timeout_while(stop, interval, |stop| *stop == Stop::No)
                .unwrap_or_else(PoisonError::into_inner);
            if *stop == Stop::Yes {
                return;
            }
            drop(stop);
            self.stage().tick(self.clock.now());
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Only a given writer can panic while it is held; the next drawing starts over anyway.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

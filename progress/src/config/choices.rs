//! The caller's choices: how bars are shown, and whether in colour.

use std::fmt;
use std::str::FromStr;

/// How bars are shown.
///
/// ```
/// use progress::Render;
/// assert_eq!("lines".parse(), Ok(Render::Lines));
/// assert_eq!(Render::JsonLines.to_string(), "json");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Render {
    /// [`Bar`](Self::Bar) if standard error is a terminal that can draw one, that is: `TERM` is neither `dumb` nor
    /// (except on Windows) unset, no `CI` variable is set, and the feature `indicatif` is on. Else
    /// [`Lines`](Self::Lines).
    #[default]
    Auto,
    /// Bars that are redrawn in place by ANSI escape sequences, even if the output is not a terminal.
    Bar,
    /// A plain line for each bar after one second, then every 10 seconds, and one at its end, such as
    /// `recommend: 1200/6710 (17.9 %), 3 failed, 2300/s, ETA 2.4 s`.
    Lines,
    /// A JSON object in place of each plain line, with the fields `event` (always `"progress"`), `bar` (array of
    /// labels, outermost first), `state` (`"running"` or `"finished"`), `unit` (`"tasks"` or `"bytes"`), `position`,
    /// `total`, `fraction` (0 to 1: of a bar's total, including running tasks; of the running task in a writer's line),
    /// `step_done` and `step_total` (of a writer's running task), `done`, `failed`, `retried`, `bytes`, `per_second`,
    /// `eta_seconds`, `elapsed_seconds`, `message`. Unknown values are `null`.
    JsonLines,
    /// Nothing.
    None,
}

const RENDERS: [(&str, Render); 5] = [
    ("auto", Render::Auto),
    ("bar", Render::Bar),
    ("lines", Render::Lines),
    ("json", Render::JsonLines),
    ("none", Render::None),
];

/// The error of parsing a [`Render`] from a string that is not its name.
#[derive(Clone, PartialEq, Eq)]
pub struct ParseRenderError(String);

impl fmt::Display for ParseRenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "no progress renderer is called {name:?}: use auto, bar, lines, json or none"
        )
    }
}

impl std::error::Error for ParseRenderError {}

impl FromStr for Render {
    type Err = ParseRenderError;

    fn from_str(name: &str) -> Result<Self, ParseRenderError> {
        find(&RENDERS, name).ok_or_else(|| ParseRenderError(name.into()))
    }
}

impl fmt::Display for Render {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(name_of(&RENDERS, *self))
    }
}

/// Whether bars have colours.
///
/// ```
/// use progress::Color;
/// assert_eq!("never".parse(), Ok(Color::Never));
/// assert_eq!(Color::Auto.to_string(), "auto");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Color {
    /// By the environment: no colours if `NO_COLOR` is set and not empty (<https://no-color.org>), else colours if
    /// `CLICOLOR_FORCE` is set and neither empty nor `0` (<https://bixense.com/clicolors>), else no colours if
    /// `CLICOLOR` is `0`, else colours on a terminal whose `TERM` is not `dumb`. An
    /// [output](crate::ReporterBuilder::output) has no colours.
    #[default]
    Auto,
    /// Colours.
    Always,
    /// No colours.
    Never,
}

const COLORS: [(&str, Color); 3] = [
    ("auto", Color::Auto),
    ("always", Color::Always),
    ("never", Color::Never),
];

/// The error of parsing a [`Color`] from a string that is not its name.
#[derive(Clone, PartialEq, Eq)]
pub struct ParseColorError(String);

impl fmt::Display for ParseColorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "no choice of colours is called {name:?}: use auto, always or never"
        )
    }
}

impl std::error::Error for ParseColorError {}

impl FromStr for Color {
    type Err = ParseColorError;

    fn from_str(name: &str) -> Result<Self, ParseColorError> {
        find(&COLORS, name).ok_or_else(|| ParseColorError(name.into()))
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(name_of(&COLORS, *self))
    }
}

fn find<T: Copy>(choices: &[(&str, T)], name: &str) -> Option<T> {
    let found = choices.iter().find(|(known, _)| *known == name)?;
    Some(found.1)
}

fn name_of<T: PartialEq>(choices: &[(&'static str, T)], choice: T) -> &'static str {
    let found = choices.iter().find(|(_, known)| *known == choice);
    found.map_or("", |(name, _)| *name)
}

shm_buffers::debug_with_causes!(ParseRenderError, ParseColorError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_displayed() {
        for (name, render) in RENDERS {
            assert_eq!(name.parse(), Ok(render));
            assert_eq!(render.to_string(), name);
        }
        for (name, color) in COLORS {
            assert_eq!(name.parse(), Ok(color));
            assert_eq!(color.to_string(), name);
        }
    }

    #[test]
    fn errors_list_the_names() {
        let error = "bars".parse::<Render>().expect_err("no such name").to_string();
        assert_eq!(
            error,
            "no progress renderer is called \"bars\": use auto, bar, lines, json or none"
        );
        let error = "yes".parse::<Color>().expect_err("no such name").to_string();
        assert_eq!(
            error,
            "no choice of colours is called \"yes\": use auto, always or never"
        );
    }
}

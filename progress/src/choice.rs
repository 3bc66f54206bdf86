//! Which renderer: what was asked for, and what the surroundings allow.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use crate::tty;

/// How bars are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Render {
    /// [`Bar`](Self::Bar) if standard error is a terminal that can draw one, that is: `TERM` is neither `dumb` nor
    /// (except on Windows) unset, no `CI` variable is set, and the feature `indicatif` is on. Else
    /// [`Lines`](Self::Lines).
    #[default]
    Auto,
    /// Bars that are redrawn in place. Off a terminal too, where they are ANSI escape sequences.
    Bar,
    /// A plain line for each bar after a second, then every 10 seconds, and one at its end, like
    /// `recommend: 1200/6710 (17.9 %), 3 failed, 2300/s, ETA 2.4 s`.
    Lines,
    /// As `Lines`, but each is a JSON object: `event` (always `"progress"`), `bar` (array of labels, outermost
    /// first), `state` (`"running"` or `"finished"`), `unit` (`"tasks"` or `"bytes"`), `position`, `total`, `share`
    /// (0 to 1: of a bar's total, running tasks included; in a writer's line of its running task), `step_done` and
    /// `step_total` (of a writer's running task), `done`, `failed`, `retried`, `bytes`, `per_second`, `eta_seconds`,
    /// `elapsed_seconds`, `message`. What is not known is `null`.
    JsonLines,
    /// Nothing.
    None,
}

const NAMES: [(&str, Render); 5] = [
    ("auto", Render::Auto),
    ("bar", Render::Bar),
    ("lines", Render::Lines),
    ("json", Render::JsonLines),
    ("none", Render::None),
];

/// No renderer has this name.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("no progress renderer is called {0:?}: use auto, bar, lines, json or none")]
pub struct ParseRenderError(String);

impl FromStr for Render {
    type Err = ParseRenderError;

    fn from_str(name: &str) -> Result<Self, ParseRenderError> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, render)| *render)
            .ok_or_else(|| ParseRenderError(name.into()))
    }
}

impl fmt::Display for Render {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(_, render)| render == self);
        f.pad(found.map_or("", |(name, _)| name))
    }
}

/// Whether bars have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Color {
    /// As the environment says: none if `NO_COLOR` is set and not empty (<https://no-color.org>), else some if
    /// `CLICOLOR_FORCE` is set and neither empty nor `0` (<https://bixense.com/clicolors>), else none if `CLICOLOR` is `0`,
    /// else some on a terminal whose `TERM` is not `dumb`. An [output](crate::ReporterBuilder::output) has none.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// What is drawn on, as far as it decides how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Whether it is a terminal that moves its cursor when told to.
    pub(crate) screen: Screen,
    pub(crate) ci: bool,
    pub(crate) color: ColorWish,
    pub(crate) utf8: bool,
    pub(crate) columns: Option<u16>,
    pub(crate) rows: Option<u16>,
}

/// The environment's wish for colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColorWish {
    None,
    Forced,
    Unsaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Terminal,
    DumbTerminal,
    NoTerminal,
}

impl Surroundings {
    /// What standard error and the environment tell.
    pub(crate) fn of_stderr() -> Self {
        let stderr = Self::new(std::io::stderr().is_terminal(), |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        });
        match stderr.screen {
            Screen::Terminal if !tty::stderr_understands_sequences() => Self {
                screen: Screen::DumbTerminal,
                ..stderr
            },
            _ => stderr,
        }
    }

    /// What a writer that was handed over is: not known to be anything.
    pub(crate) fn of_writer() -> Self {
        Self {
            screen: Screen::NoTerminal,
            ci: false,
            color: ColorWish::Unsaid,
            utf8: true,
            columns: None,
            rows: None,
        }
    }

    fn new(is_terminal: bool, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let size = |name| {
            let size = set(name)?.trim().parse().ok()?;
            (size > 0).then_some(size)
        };
        let dumb = set("TERM").map_or(!cfg!(windows), |term| term == "dumb");
        // The first of these that is set decides (POSIX.1-2024, 8.2 Internationalization Variables).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name));
        let utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            screen: match (is_terminal, dumb) {
                (true, false) => Screen::Terminal,
                (true, true) => Screen::DumbTerminal,
                (false, _) => Screen::NoTerminal,
            },
            ci: set("CI").is_some_and(|ci| ci != "false" && ci != "0"),
            color: match (set("NO_COLOR"), set("CLICOLOR_FORCE"), set("CLICOLOR")) {
                (Some(_), _, _) => ColorWish::None,
                (None, Some(forced), _) if forced != "0" => ColorWish::Forced,
                (None, _, Some(wanted)) if wanted == "0" => ColorWish::None,
                _ => ColorWish::Unsaid,
            },
            utf8: utf8 || cfg!(any(windows, target_os = "macos")),
            columns: size("COLUMNS"),
            rows: size("LINES"),
        }
    }

    /// What `Auto` means here.
    pub(crate) fn auto(&self) -> Render {
        match self.screen {
            Screen::Terminal if !self.ci && cfg!(feature = "indicatif") => Render::Bar,
            _ => Render::Lines,
        }
    }

    #[cfg(feature = "indicatif")]
    pub(crate) fn has_color(&self, color: Color) -> bool {
        match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => match self.color {
                ColorWish::None => false,
                ColorWish::Forced => true,
                ColorWish::Unsaid => self.screen == Screen::Terminal,
            },
        }
    }
}

shm_buffers::debug_with_causes!(ParseRenderError);

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Surroundings {
        Surroundings::new(true, |name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn auto_draws_bars_only_where_someone_sees_them() {
        let xterm = ("TERM", "xterm-256color");
        assert_eq!(with(&[xterm]).auto(), Render::Bar);
        assert_eq!(with(&[xterm, ("CI", "false")]).auto(), Render::Bar);
        assert_eq!(with(&[xterm, ("CI", "true")]).auto(), Render::Lines);
        assert_eq!(with(&[("TERM", "dumb")]).auto(), Render::Lines);
        assert_eq!(
            Surroundings::new(false, |_| Some("xterm".into())).auto(),
            Render::Lines
        );
        assert_eq!(Surroundings::of_writer().auto(), Render::Lines);
    }

    #[test]
    #[cfg(not(feature = "indicatif"))]
    fn auto_draws_lines_without_indicatif() {
        assert_eq!(with(&[("TERM", "xterm")]).auto(), Render::Lines);
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn no_color_counts_unless_empty() {
        let xterm = ("TERM", "xterm");
        assert!(with(&[xterm]).has_color(Color::Auto));
        assert!(with(&[xterm, ("NO_COLOR", "")]).has_color(Color::Auto));
        assert!(!with(&[xterm, ("NO_COLOR", "1")]).has_color(Color::Auto));
        assert!(with(&[xterm, ("NO_COLOR", "1")]).has_color(Color::Always));
        assert!(!Surroundings::of_writer().has_color(Color::Auto));
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn colours_are_as_the_environment_says() {
        let cases: [(&[(&str, &str)], bool); 10] = [
            (&[("TERM", "xterm")], true),
            (&[("TERM", "dumb")], false),
            (&[("TERM", "xterm"), ("CLICOLOR", "0")], false),
            (&[("TERM", "xterm"), ("CLICOLOR", "1")], true),
            (&[("TERM", "xterm"), ("CLICOLOR", "")], true),
            (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true),
            (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "0")], false),
            (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "")], false),
            (
                &[("TERM", "xterm"), ("CLICOLOR", "0"), ("CLICOLOR_FORCE", "1")],
                true,
            ),
            (
                &[("TERM", "xterm"), ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
                false,
            ),
        ];
        for (vars, colours) in cases {
            assert_eq!(with(vars).has_color(Color::Auto), colours, "{vars:?}");
        }
        let off_a_terminal = |name: &'static str| {
            Surroundings::new(false, move |asked| (asked == name).then(|| "1".to_owned()))
                .has_color(Color::Auto)
        };
        assert!(off_a_terminal("CLICOLOR_FORCE") && !off_a_terminal("CLICOLOR"));
    }

    #[test]
    fn sizes_that_are_none_are_ignored() {
        let sizes = |value| {
            let terminal = with(&[("COLUMNS", value), ("LINES", value)]);
            (terminal.columns, terminal.rows)
        };
        assert_eq!(sizes("90"), (Some(90), Some(90)));
        for nonsense in ["0", "", "-1", "wide", "99999999"] {
            assert_eq!(sizes(nonsense), (None, None), "{nonsense:?}");
        }
    }

    #[test]
    #[cfg(not(any(windows, target_os = "macos")))]
    fn the_locale_decides_on_the_characters() {
        assert!(with(&[("LANG", "en_US.UTF-8")]).utf8);
        assert!(with(&[("LC_ALL", "C.utf8"), ("LANG", "C")]).utf8);
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]).utf8);
        assert!(!with(&[]).utf8);
    }

    #[test]
    fn names_are_read_back() {
        for (name, render) in NAMES {
            assert_eq!(name.parse(), Ok(render));
            assert_eq!(render.to_string(), name);
        }
        let error = "bars".parse::<Render>().expect_err("no such name").to_string();
        assert_eq!(
            error,
            "no progress renderer is called \"bars\": use auto, bar, lines, json or none"
        );
    }
}

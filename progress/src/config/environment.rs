//! The environment: the terminal on standard error and the variables that decide how to draw on it.

use std::io::IsTerminal;

#[cfg(feature = "indicatif")]
use super::choices::Color;
use super::choices::Render;
use crate::tty;

/// The properties of the output that decide how to draw on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) terminal: TerminalKind,
    /// Whether a continuous integration service runs this process.
    pub(crate) ci: bool,
    pub(crate) color: ColorPreference,
    /// Whether the locale's encoding is UTF-8.
    pub(crate) utf8: bool,
    pub(crate) columns: Option<u16>,
    pub(crate) rows: Option<u16>,
}

/// The preference for colours that environment variables express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColorPreference {
    Never,
    Always,
    Unset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminalKind {
    /// A terminal that interprets escape sequences.
    Capable,
    /// A terminal that does not.
    Dumb,
    NotATerminal,
}

impl Environment {
    /// Returns the environment of standard error.
    pub(crate) fn of_stderr() -> Self {
        let stderr = Self::new(std::io::stderr().is_terminal(), |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        });
        match stderr.terminal {
            TerminalKind::Capable if !tty::stderr_interprets_sequences() => Self {
                terminal: TerminalKind::Dumb,
                ..stderr
            },
            _ => stderr,
        }
    }

    /// Returns the environment of a writer about which nothing is known.
    pub(crate) fn of_writer() -> Self {
        Self {
            terminal: TerminalKind::NotATerminal,
            ci: false,
            color: ColorPreference::Unset,
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
            terminal: match (is_terminal, dumb) {
                (true, false) => TerminalKind::Capable,
                (true, true) => TerminalKind::Dumb,
                (false, _) => TerminalKind::NotATerminal,
            },
            ci: set("CI").is_some_and(|ci| ci != "false" && ci != "0"),
            color: match (set("NO_COLOR"), set("CLICOLOR_FORCE"), set("CLICOLOR")) {
                (Some(_), _, _) => ColorPreference::Never,
                (None, Some(forced), _) if forced != "0" => ColorPreference::Always,
                (None, _, Some(color)) if color == "0" => ColorPreference::Never,
                _ => ColorPreference::Unset,
            },
            utf8: utf8 || cfg!(any(windows, target_os = "macos")),
            columns: size("COLUMNS"),
            rows: size("LINES"),
        }
    }

    /// Returns the renderer that [`Render::Auto`] selects.
    pub(crate) fn auto_render(&self) -> Render {
        match self.terminal {
            TerminalKind::Capable if !self.ci && cfg!(feature = "indicatif") => Render::Bar,
            _ => Render::Lines,
        }
    }

    /// Whether bars have colours with this choice.
    #[cfg(feature = "indicatif")]
    pub(crate) fn has_color(&self, choice: Color) -> bool {
        match choice {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => match self.color {
                ColorPreference::Never => false,
                ColorPreference::Always => true,
                ColorPreference::Unset => self.terminal == TerminalKind::Capable,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Environment {
        Environment::new(true, |name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn auto_selects_bars_only_on_a_capable_terminal_outside_of_ci() {
        let xterm = ("TERM", "xterm-256color");
        assert_eq!(with(&[xterm]).auto_render(), Render::Bar);
        assert_eq!(with(&[xterm, ("CI", "false")]).auto_render(), Render::Bar);
        assert_eq!(with(&[xterm, ("CI", "true")]).auto_render(), Render::Lines);
        assert_eq!(with(&[("TERM", "dumb")]).auto_render(), Render::Lines);
        assert_eq!(
            Environment::new(false, |_| Some("xterm".into())).auto_render(),
            Render::Lines
        );
        assert_eq!(Environment::of_writer().auto_render(), Render::Lines);
    }

    #[test]
    #[cfg(not(feature = "indicatif"))]
    fn auto_selects_lines_without_the_feature_indicatif() {
        assert_eq!(with(&[("TERM", "xterm")]).auto_render(), Render::Lines);
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn no_color_has_an_effect_unless_empty() {
        let xterm = ("TERM", "xterm");
        assert!(with(&[xterm]).has_color(Color::Auto));
        assert!(with(&[xterm, ("NO_COLOR", "")]).has_color(Color::Auto));
        assert!(!with(&[xterm, ("NO_COLOR", "1")]).has_color(Color::Auto));
        assert!(with(&[xterm, ("NO_COLOR", "1")]).has_color(Color::Always));
        assert!(!Environment::of_writer().has_color(Color::Auto));
    }

    #[test]
    #[cfg(feature = "indicatif")]
    fn clicolor_variables_decide_on_colours() {
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
            Environment::new(false, move |asked| (asked == name).then(|| "1".to_owned()))
                .has_color(Color::Auto)
        };
        assert!(off_a_terminal("CLICOLOR_FORCE") && !off_a_terminal("CLICOLOR"));
    }

    #[test]
    fn invalid_sizes_are_ignored() {
        let sizes = |value| {
            let terminal = with(&[("COLUMNS", value), ("LINES", value)]);
            (terminal.columns, terminal.rows)
        };
        assert_eq!(sizes("90"), (Some(90), Some(90)));
        for invalid in ["0", "", "-1", "wide", "99999999"] {
            assert_eq!(sizes(invalid), (None, None), "{invalid:?}");
        }
    }

    #[test]
    #[cfg(not(any(windows, target_os = "macos")))]
    fn locale_decides_on_utf8() {
        assert!(with(&[("LANG", "en_US.UTF-8")]).utf8);
        assert!(with(&[("LC_ALL", "C.utf8"), ("LANG", "C")]).utf8);
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]).utf8);
        assert!(!with(&[]).utf8);
    }
}

//! [`Launch`]: the program that workers execute, with its environment, working directory and standard streams.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::error::PoolError;
use crate::observer::Redirect;
use crate::os::{self, PinnedPath};

/// The program that workers execute.
#[derive(Debug, Clone, Default)]
pub(crate) enum Program {
    /// The program that runs now.
    #[default]
    Own,
    /// Another program.
    Other(Arc<PinnedPath>),
}

/// The differences between the workers' environment and that of this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    base: Base,
    /// New values by name; `None` removes the variable.
    changes: BTreeMap<OsString, Option<OsString>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Base {
    #[default]
    Inherited,
    Empty,
}

impl Environment {
    pub(crate) fn set(&mut self, name: OsString, value: OsString) {
        self.changes.insert(name, Some(value));
    }

    pub(crate) fn remove(&mut self, name: OsString) {
        self.changes.insert(name, None);
    }

    /// Inherits nothing, and forgets what was set before.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            base: Base::Empty,
            changes: BTreeMap::new(),
        };
    }

    pub(crate) fn inherits(&self) -> bool {
        self.base == Base::Inherited
    }

    /// Returns whether the variable was set or removed.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        self.changes.contains_key(OsStr::new(name))
    }

    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.changes.get(OsStr::new(name))?.as_deref()
    }

    fn apply(&self, command: &mut Command) {
        if self.base == Base::Empty {
            command.env_clear();
        }
        for (name, value) in &self.changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

/// How worker processes are launched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    pub(crate) program: Program,
    /// The arguments of another program. This one is launched with its own.
    pub(crate) args: Vec<OsString>,
    /// The working directory; `None` for that of this process.
    pub(crate) directory: Option<PathBuf>,
    /// `directory`, opened once for all workers.
    pinned_directory: Option<Arc<PinnedPath>>,
    pub(crate) environment: Environment,
    pub(crate) stdout: Redirect,
    pub(crate) stderr: Redirect,
}

impl Launch {
    /// Opens what every worker needs, so that errors which no retry would fix are reported here.
    pub(crate) fn prepare(&mut self) -> Result<(), PoolError> {
        self.pinned_directory = match &self.directory {
            None => None,
            Some(dir) => Some(Arc::new(PinnedPath::directory(dir).map_err(|source| {
                let (dir, source) = (dir.clone(), source.into());
                PoolError::CurrentDir { dir, source }
            })?)),
        };
        Ok(())
    }

    /// Returns whether the pool reads an output stream of its workers.
    pub(crate) fn captures(&self) -> bool {
        [self.stdout, self.stderr].contains(&Redirect::Capture)
    }

    /// Returns the command that starts a worker with this standard input, and with `variables` beside those of all workers.
    pub(crate) fn command(
        &self,
        stdin: Stdio,
        variables: &[(OsString, OsString)],
    ) -> Result<Command, PoolError> {
        let mut command = match &self.program {
            Program::Own => own_program()?,
            Program::Other(program) => other_program(program, &self.args),
        };
        if let Some(directory) = &self.pinned_directory {
            command.current_dir(directory.exec_path());
        }
        self.environment.apply(&mut command);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin);
        command.stdout(self.stdout.stdio()).stderr(self.stderr.stdio());
        Ok(command)
    }

    /// Returns the pool's error for a command that could not be executed.
    pub(crate) fn spawn_error(&self, source: io::Error) -> PoolError {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let is_permanent =
            matches!(source.kind(), NotFound | PermissionDenied) || os::is_exec_format_error(&source);
        match &self.program {
            Program::Other(program) if is_permanent => program_error(program.path(), source),
            _ => PoolError::os("start a worker process", source),
        }
    }
}

impl Program {
    /// Returns the path of the program, for errors.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Own => std::env::current_exe().unwrap_or_default(),
            Self::Other(program) => program.path().to_owned(),
        }
    }

    /// Opens the program at `path`, relative to the current directory of this process.
    pub(crate) fn other(path: &Path) -> Result<Self, PoolError> {
        let kept = PinnedPath::program(path).map_err(|source| program_error(path, source))?;
        Ok(Self::Other(Arc::new(kept)))
    }
}

/// Returns a command that executes another program, under its own name.
fn other_program(program: &PinnedPath, args: &[OsString]) -> Command {
    let mut command = Command::new(program.exec_path());
    command.args(args);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.arg0(program.path());
    }
    command
}

fn program_error(path: &Path, source: io::Error) -> PoolError {
    PoolError::Program {
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Returns a command that executes this program again, with the same arguments.
fn own_program() -> Result<Command, PoolError> {
    let program = os::own_executable().map_err(PoolError::io("find the program's executable"))?;
    let mut arguments = os::arguments();
    let mut command = Command::new(program);
    let name = arguments.next();
    #[cfg(unix)]
    if let Some(name) = name {
        use std::os::unix::process::CommandExt;
        command.arg0(name);
    }
    #[cfg(not(unix))]
    drop(name);
    command.args(arguments);
    Ok(command)
}

//! [`Launch`]: what is executed as a worker, and what the process finds around it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::error::PoolError;
use crate::os::{self, Kept};
use crate::printed::Redirect;

/// What to execute.
#[derive(Debug, Clone, Default)]
pub(crate) enum Program {
    /// This program again.
    #[default]
    Own,
    /// Another one.
    Other(Arc<Kept>),
}

/// How the workers' environment differs from this process's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    base: Base,
    /// A value, or that the variable is not to be there.
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

    /// Nothing is inherited; what was set before is forgotten, too.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            base: Base::Empty,
            changes: BTreeMap::new(),
        };
    }

    pub(crate) fn inherits(&self) -> bool {
        self.base == Base::Inherited
    }

    /// Whether it was set or removed.
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

/// How worker processes are started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    pub(crate) program: Program,
    /// Where; `None` for where this process is.
    pub(crate) directory: Option<PathBuf>,
    /// The same, found once.
    kept_directory: Option<Arc<Kept>>,
    pub(crate) environment: Environment,
    pub(crate) stdout: Redirect,
    pub(crate) stderr: Redirect,
}

impl Launch {
    /// Finds what every worker is started with; an error that no number of attempts would help is reported here.
    pub(crate) fn prepare(&mut self) -> Result<(), PoolError> {
        self.kept_directory = match &self.directory {
            None => None,
            Some(dir) => Some(Arc::new(Kept::directory(dir).map_err(|source| {
                let (dir, source) = (dir.clone(), source.into());
                PoolError::CurrentDir { dir, source }
            })?)),
        };
        Ok(())
    }

    /// Whether somebody has to read what workers print.
    pub(crate) fn captures(&self) -> bool {
        [self.stdout, self.stderr].contains(&Redirect::Capture)
    }

    /// The command that starts a worker with that standard input.
    pub(crate) fn command(&self, stdin: Stdio) -> Result<Command, PoolError> {
        let mut command = match &self.program {
            Program::Own => own()?,
            Program::Other(program) => named(program),
        };
        if let Some(directory) = &self.kept_directory {
            command.current_dir(directory.reach());
        }
        self.environment.apply(&mut command);
        command.stdin(stdin);
        command.stdout(self.stdout.stdio()).stderr(self.stderr.stdio());
        Ok(command)
    }

    /// Why the command could not be executed.
    pub(crate) fn refused(&self, source: io::Error) -> PoolError {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let lasting = matches!(source.kind(), NotFound | PermissionDenied) || os::is_no_program(&source);
        match &self.program {
            Program::Other(program) if lasting => unusable(program.path(), source),
            _ => PoolError::os("start a worker process", source),
        }
    }
}

impl Program {
    /// The program at `path`, relative to this process's current directory.
    pub(crate) fn other(path: &Path) -> Result<Self, PoolError> {
        let kept = Kept::program(path).map_err(|source| unusable(path, source))?;
        Ok(Self::Other(Arc::new(kept)))
    }
}

/// Another program, by its own name.
fn named(program: &Kept) -> Command {
    #[cfg_attr(not(unix), expect(unused_mut))]
    let mut command = Command::new(program.reach());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.arg0(program.path());
    }
    command
}

fn unusable(path: &Path, source: io::Error) -> PoolError {
    PoolError::Program {
        path: path.to_owned(),
        source: source.into(),
    }
}

/// This program again, with the same arguments.
fn own() -> Result<Command, PoolError> {
    let program = os::program().map_err(PoolError::io("find the program's executable"))?;
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

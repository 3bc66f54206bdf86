//! [`Launch`]: what is executed as a worker, and what the process finds around it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::error::PoolError;
use crate::os;
use crate::printed::Redirect;

/// What to execute.
#[derive(Debug, Clone, Default)]
pub(crate) enum Program {
    /// This program again.
    #[default]
    Own,
    /// Another one, by its absolute path.
    Other(PathBuf),
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
    pub(crate) environment: Environment,
    pub(crate) stdout: Redirect,
    pub(crate) stderr: Redirect,
}

impl Launch {
    /// Refuses at once what no number of attempts would help.
    pub(crate) fn check(&self) -> Result<(), PoolError> {
        if let Some(directory) = &self.directory {
            let found = std::fs::metadata(directory);
            let found = found.and_then(|meta| match meta.is_dir() {
                true => Ok(()),
                false => Err(io::ErrorKind::NotADirectory.into()),
            });
            found.map_err(|source| PoolError::CurrentDir {
                dir: directory.clone(),
                source: Arc::new(source),
            })?;
        }
        match &self.program {
            Program::Own => Ok(()),
            Program::Other(path) => os::check_executable(path).map_err(|source| unusable(path, source)),
        }
    }

    /// Whether somebody has to read what workers print.
    pub(crate) fn captures(&self) -> bool {
        [self.stdout, self.stderr].contains(&Redirect::Capture)
    }

    /// The command that starts a worker.
    pub(crate) fn command(&self) -> Result<Command, PoolError> {
        let mut command = match &self.program {
            Program::Own => own()?,
            Program::Other(path) => Command::new(path),
        };
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        self.environment.apply(&mut command);
        // Several readers of one terminal would steal one another's input.
        command.stdin(Stdio::null());
        command.stdout(self.stdout.stdio()).stderr(self.stderr.stdio());
        Ok(command)
    }

    /// Why the command could not be executed.
    pub(crate) fn refused(&self, source: io::Error) -> PoolError {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let lasting = matches!(source.kind(), NotFound | PermissionDenied) || os::is_no_program(&source);
        match &self.program {
            Program::Other(path) if lasting => unusable(path, source),
            _ => PoolError::os("start a worker process", source),
        }
    }
}

fn unusable(path: &Path, source: io::Error) -> PoolError {
    PoolError::Program {
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

/// This program again, with the same arguments.
fn own() -> Result<Command, PoolError> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(os::program().map_err(PoolError::io("find the program's executable"))?);
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

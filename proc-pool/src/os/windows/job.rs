//! A worker and what its ops start, Windows: one job, which ends as a whole.
#![allow(unsafe_code)]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command, ExitStatus};
use std::ptr;

use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject, TerminateJobObject,
};

/// The exit status of what is killed with a worker, as of the worker itself (`std::process::Child::kill`).
const KILLED: u32 = 1;

/// The job of a worker. Programs that the worker starts are in it, too, unless they are started with `CREATE_BREAKAWAY_FROM_JOB`.
/// All of it ends when this is dropped, and when this process ends, however that comes: the system closes the job's only
/// handle.
///
/// Where the system refuses, the liveness channel ends the worker alone, later.
#[derive(Debug)]
pub(crate) struct Group(Option<OwnedHandle>);

impl Group {
    /// Nothing: a process is put into its job once it was started.
    pub(crate) fn prepare(_: &mut Command) {}

    /// Puts the process into a new job.
    pub(crate) fn of(child: &Child) -> Self {
        let job = new().ok();
        if let Some(job) = &job {
            // SAFETY: both handles are open; a process may be put into a job of its parent's.
            let _ = unsafe { AssignProcessToJobObject(job.as_raw_handle(), child.as_raw_handle()) };
        }
        Self(job)
    }

    /// Kills the worker and all processes of its job.
    pub(crate) fn kill(&self, child: &mut Child) {
        self.kill_all();
        // It may not be in the job.
        let _ = child.kill();
    }

    /// Returns the worker's status if it has ended; the rest of its job is killed then.
    pub(crate) fn try_wait(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let status = child.try_wait()?;
        if status.is_some() {
            self.kill_all();
        }
        Ok(status)
    }

    fn kill_all(&self) {
        if let Some(job) = &self.0 {
            // SAFETY: the handle is open.
            let _ = unsafe { TerminateJobObject(job.as_raw_handle(), KILLED) };
        }
    }
}

fn new() -> io::Result<OwnedHandle> {
    // SAFETY: neither attributes nor a name have to be given. Without attributes, no child inherits the handle.
    let job = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
    if job.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new handle that nothing else closes.
    let job = unsafe { OwnedHandle::from_raw_handle(job) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    let size = size_of_val(&limits) as u32;
    // SAFETY: the handle is open, and `limits` the structure of that class, valid for `size` bytes.
    let set = unsafe {
        SetInformationJobObject(
            job.as_raw_handle(),
            JobObjectExtendedLimitInformation,
            (&raw const limits).cast(),
            size,
        )
    };
    match set {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(job),
    }
}

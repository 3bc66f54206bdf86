//! [`ProcessGroup`]: a worker and the processes that its ops start, on Windows. They are in one job, and the system kills a job
//! as a whole.
#![allow(unsafe_code, reason = "manages the job that ends workers with their leader")]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command, ExitStatus};
use std::ptr;

use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject, TerminateJobObject,
};

/// The exit code of processes that are killed with a worker: the same as that of the worker itself
/// (`std::process::Child::kill`).
const KILLED: u32 = 1;

/// The job of a worker. It includes the programs that the worker starts, unless they are started with
/// `CREATE_BREAKAWAY_FROM_JOB`. All of its processes end when this value is dropped, and when this process ends in whatever
/// way, because the system then closes the job's only handle.
///
/// If the system refuses to make a job, the worker alone ends, when it notices that the leader's channel has closed.
#[derive(Debug)]
pub(crate) struct ProcessGroup(Option<OwnedHandle>);

impl ProcessGroup {
    /// Does nothing: a process is put into its job after its start.
    pub(crate) fn prepare(_: &mut Command) {}

    /// Puts the process into a new job.
    pub(crate) fn of(child: &Child) -> Self {
        let job = new().ok();
        if let Some(job) = &job {
            // SAFETY: both handles are open. A parent may put its child into a job.
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

    /// Returns the worker's status if it has ended. Then the rest of its job is killed.
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
    // SAFETY: both pointers may be null: attributes and name are optional. Without attributes, no child inherits the handle.
    let job = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
    if job.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is new, and nothing else closes it.
    let job = unsafe { OwnedHandle::from_raw_handle(job) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    let size = size_of_val(&limits) as u32;
    // SAFETY: the handle is open; `limits` is the structure of that class, and valid for `size` bytes.
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

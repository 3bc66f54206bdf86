//! The job that ends this process's workers with it.
#![allow(unsafe_code)]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::Child;
use std::ptr;
use std::sync::OnceLock;

use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject,
};

/// Lets `child` end when this process does, however that comes: the system then closes the job's only handle. What the
/// child starts itself goes on, unless it is in a job as well.
///
/// Where the system refuses, the liveness channel does the same, later.
pub(crate) fn end_with_us(child: &Child) {
    /// One for the process, never closed: not by a pool's end either, whose workers are ended in their own way.
    static JOB: OnceLock<Option<OwnedHandle>> = OnceLock::new();
    if let Some(job) = JOB.get_or_init(|| new().ok()) {
        // SAFETY: both handles are open; a process may be put into a job of its parent's.
        let _ = unsafe { AssignProcessToJobObject(job.as_raw_handle(), child.as_raw_handle()) };
    }
}

fn new() -> io::Result<OwnedHandle> {
    // SAFETY: neither attributes nor a name have to be given. Without attributes, no child inherits the handle.
    let job = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
    if job.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new handle that nobody else closes.
    let job = unsafe { OwnedHandle::from_raw_handle(job) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
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

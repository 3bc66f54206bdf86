//! [`Facts`]: the state of the system, as far as the doctor checks it.

use std::io::IsTerminal;

use proc_pool::SystemInfo;
use shm_buffers::{Backing, Buffer, Image, MemoryInfo};

use crate::settings;

/// Everything that findings are made from.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) memory: MemoryInfo,
    pub(super) system: SystemInfo,
    /// Whether anonymous memory can be created, sealed, and attached from elsewhere; the reason if not.
    pub(super) sharing: Result<(), String>,
    /// Whether standard error is a terminal.
    pub(super) terminal: bool,
    /// The value of `RUST_BACKTRACE`.
    pub(super) backtrace: Option<String>,
    /// The variables of this crate that are set, or why one is invalid.
    pub(super) variables: Result<Vec<(&'static str, String)>, String>,
}

impl Facts {
    pub(super) fn now() -> Self {
        Self {
            memory: MemoryInfo::now(),
            system: SystemInfo::now(),
            sharing: try_sharing(),
            terminal: std::io::stderr().is_terminal(),
            backtrace: std::env::var("RUST_BACKTRACE").ok(),
            variables: settings::variables(&settings::environment),
        }
    }
}

/// Shares a page and attaches it, as another process would.
fn try_sharing() -> Result<(), String> {
    let in_full = |error: &(dyn std::error::Error + 'static)| format!("{:#}", shm_buffers::WithCauses(error));
    let page: Buffer<u8> = vec![7; 4096].into();
    let image = shm_buffers::share(&page, &Backing::Anonymous).map_err(|e| in_full(&e))?;
    let handle = image.handle().map_err(|e| in_full(&e))?;
    let attached = Image::attach(&handle).map_err(|e| in_full(&e))?;
    match attached.load::<Buffer<u8>>() {
        Ok(attached) if attached == page => Ok(()),
        Ok(_) => Err("the bytes read differ from the bytes written".to_owned()),
        Err(e) => Err(in_full(&e)),
    }
}

//! Objects of Windows (modules): their memory, as reported by the system, and their file.
#![allow(unsafe_code, reason = "reads a module, its memory and its file")]

use std::ffi::{OsString, c_void};
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::Storage::FileSystem::{BY_HANDLE_FILE_INFORMATION, GetFileInformationByHandle};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, GetModuleFileNameW,
    GetModuleHandleExW,
};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_IMAGE, MEMORY_BASIC_INFORMATION, PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE,
    PAGE_EXECUTE_WRITECOPY, VirtualQuery,
};

use super::{Identity, LoadedObject, Protection, Segment};

/// Length of the longest path that the system supports, in UTF-16 units, with the final 0.
const MAX_PATH: usize = 1 << 15;

pub(super) fn find_object(address: usize) -> io::Result<LoadedObject> {
    let module = module_of(address)?;
    let file = File::open(path_of(module)?)?;
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and `info` valid for writes.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let identity = Identity {
        file: Some((
            u64::from(info.dwVolumeSerialNumber),
            pair(info.nFileIndexHigh, info.nFileIndexLow),
        )),
        build: Vec::new(),
        layout: pair(info.nFileSizeHigh, info.nFileSizeLow),
    };
    let segments = segments_of(module);
    Ok(LoadedObject { identity, segments })
}

fn module_of(address: usize) -> io::Result<HMODULE> {
    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    let mut module = std::ptr::null_mut();
    // SAFETY: with FROM_ADDRESS the call accepts any address, and `module` is valid for its write.
    let found = unsafe { GetModuleHandleExW(flags, address as *const u16, &raw mut module) };
    match found {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(module),
    }
}

fn path_of(module: HMODULE) -> io::Result<OsString> {
    let mut path = vec![0; MAX_PATH];
    // SAFETY: the module is loaded, because it contains code that this process runs; `path` is valid for writes of its length.
    let len = unsafe { GetModuleFileNameW(module, path.as_mut_ptr(), MAX_PATH as u32) } as usize;
    match len {
        0 => Err(io::Error::last_os_error()),
        MAX_PATH.. => Err(io::Error::other("the path of its module is too long")),
        _ => Ok(OsString::from_wide(&path[..len])),
    }
}

/// Returns the memory of the module: from its base address (its handle is that address) as far as pages belong to it.
fn segments_of(module: HMODULE) -> Vec<Segment> {
    const EXECUTABLE: u32 =
        PAGE_EXECUTE | PAGE_EXECUTE_READ | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    let mut segments = Vec::new();
    let mut address = module as usize;
    loop {
        let mut pages = MEMORY_BASIC_INFORMATION::default();
        let size = size_of_val(&pages);
        // SAFETY: the call accepts any address, and `pages` is valid for a write of `size` bytes.
        let written = unsafe { VirtualQuery(address as *const c_void, &raw mut pages, size) };
        if written == 0 || pages.AllocationBase != module || pages.Type != MEM_IMAGE {
            return segments;
        }
        let end = (pages.BaseAddress as usize).saturating_add(pages.RegionSize);
        if pages.State == MEM_COMMIT {
            segments.push(Segment {
                addresses: address..end,
                protection: Protection::of(pages.Protect & EXECUTABLE != 0),
            });
        }
        if end <= address {
            return segments;
        }
        address = end;
    }
}

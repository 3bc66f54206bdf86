//! Windows: named file mappings in the paging file, and files.
#![allow(unsafe_code, reason = "maps named memory, reads memory and file information")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::ptr;

use memmap2::MmapOptions;
use windows_sys::Win32::Foundation::{
    ERROR_ALREADY_EXISTS, ERROR_COMMITMENT_LIMIT, ERROR_DISK_FULL, ERROR_INVALID_HANDLE, GENERIC_READ,
    GENERIC_WRITE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, DELETE, FILE_ATTRIBUTE_TEMPORARY, FILE_FLAG_DELETE_ON_CLOSE,
    GetDiskFreeSpaceExW, GetFileInformationByHandle,
};
use windows_sys::Win32::System::Memory::{
    CreateFileMappingW, FILE_MAP, FILE_MAP_COPY, FILE_MAP_READ, FILE_MAP_WRITE, MEM_RESET,
    MEMORY_BASIC_INFORMATION, MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, OpenFileMappingW, PAGE_READWRITE,
    UnmapViewOfFile, VirtualAlloc, VirtualQuery,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use super::{Access, Locator, Mapping, MoveSource, names};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::{AttachError, CreateError};

/// Keeps memory in existence, under its name.
#[derive(Debug)]
pub(crate) enum Store {
    /// The system removes the object and its name when no process has it open or mapped any more.
    Named { name: String, object: OwnedHandle },
    /// The system deletes the file when this handle is closed, also by the death of the process.
    File { path: PathBuf, file: File },
}

/// A mapped view of a named object. Dropping it unmaps the view.
pub(super) struct View(MEMORY_MAPPED_VIEW_ADDRESS);

impl View {
    pub(super) fn start(&self) -> *mut u8 {
        self.0.Value.cast()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the address came from MapViewOfFile, only this value unmaps it, and references into the view borrow
        // the `Mapping` that owns this value.
        unsafe { UnmapViewOfFile(self.0) };
    }
}

pub(super) fn create(
    backing: &Backing,
    len: usize,
    _: Option<&mut MoveSource<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    let store = match backing {
        Backing::Named => named(len)?,
        Backing::File(dir) => in_directory(dir, len)?,
        Backing::Anonymous | Backing::HugePages | Backing::Auto => {
            return Err(CreateError::Unsupported {
                backing: BackingKind::Anonymous,
            });
        }
    };
    let mapping = store
        .map(len, Access::ReadWrite)
        .map_err(|e| create_error("map", len, store.kind(), e))?;
    Ok((store, mapping))
}

/// Returns `NoSpace` as well if the space was used up between admission and creation.
fn create_error(step: &'static str, len: usize, backing: BackingKind, source: io::Error) -> CreateError {
    let full = [ERROR_COMMITMENT_LIMIT, ERROR_DISK_FULL];
    match source.raw_os_error() {
        Some(code) if full.contains(&code.cast_unsigned()) => CreateError::NoSpace {
            needed: len as u64,
            available: 0,
            backing,
            hint: "free memory or disk space, or enlarge the paging file",
        },
        _ => CreateError::os(step, len, backing, source),
    }
}

/// Creates memory of the paging file. All of it is committed here, so that no touch of it fails later.
fn named(len: usize) -> Result<Store, CreateError> {
    let kind = BackingKind::Named;
    let created = names::create_with_name(|name| {
        // The name is local to this logon session. By default, only this user and administrators may open the object.
        let name = format!("Local\\{name}");
        let object = new_object(&name, len)?.ok_or(io::ErrorKind::AlreadyExists)?;
        Ok(Store::Named { name, object })
    });
    created.map_err(|e| create_error("create", len, kind, e))
}

/// Creates an object of the paging file. Returns `None` if the name is taken by an object of another process.
fn new_object(name: &str, len: usize) -> io::Result<Option<OwnedHandle>> {
    let (high, low) = ((len as u64 >> 32) as u32, len as u32);
    let wide = wide(name.as_ref());
    // SAFETY: `wide` ends with a zero and lives during the call; the file and the attributes are optional.
    let object = unsafe {
        CreateFileMappingW(
            INVALID_HANDLE_VALUE,
            ptr::null(),
            PAGE_READWRITE,
            high,
            low,
            wide.as_ptr(),
        )
    };
    // Read before any other call: the function also succeeds if it opens an existing object, which only the last error shows.
    let error = io::Error::last_os_error();
    if object.is_null() {
        // The name may also be taken by an object of another kind.
        return match error.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_INVALID_HANDLE) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: an open handle, owned here alone.
    let object = unsafe { OwnedHandle::from_raw_handle(object) };
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_ALREADY_EXISTS) => Ok(None),
        _ => Ok(Some(object)),
    }
}

fn in_directory(dir: &Path, len: usize) -> Result<Store, CreateError> {
    let directory = |source| CreateError::Directory {
        dir: PathBuf::from(dir),
        source,
    };
    // Processes that attach may have other working directories.
    let dir = std::path::absolute(dir).map_err(directory)?;
    let created = names::create_with_name(|name| {
        let path = dir.join(name);
        let file = File::options()
            .access_mode(GENERIC_READ | GENERIC_WRITE | DELETE)
            .attributes(FILE_ATTRIBUTE_TEMPORARY)
            .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
            // `create_new` needs it; `access_mode` overrides the access.
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((path, file))
    });
    let (path, file) = created.map_err(directory)?;
    // This allocates the space, because the file is not sparse.
    file.set_len(len as u64)
        .map_err(|e| create_error("reserve", len, BackingKind::File, e))?;
    Ok(Store::File { path, file })
}

impl Store {
    pub(crate) fn kind(&self) -> BackingKind {
        match self {
            Self::Named { .. } => BackingKind::Named,
            Self::File { .. } => BackingKind::File,
        }
    }

    pub(crate) fn pages(&self) -> Pages {
        Pages::Ordinary
    }

    pub(crate) fn map(&self, len: usize, access: Access) -> io::Result<Mapping> {
        match self {
            Self::Named { object, .. } => view(object, len, access),
            Self::File { file, .. } => map(file, len, access),
        }
    }

    /// Not supported: on Windows, a mapping and writes to its file are not coherent.
    pub(crate) fn write_at(&self, _bytes: &[u8], _offset: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has no effect: Windows has no seals.
    pub(crate) fn seal(&self, _access: Access) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn locator(&self) -> io::Result<Locator> {
        Ok(match self {
            Self::Named { name, .. } => Locator::Name(name.clone()),
            Self::File { path, .. } => Locator::Path(path.clone()),
        })
    }
}

/// Changes the length of memory that only this process can access. New bytes are zeroed. Mapped objects have a fixed size
/// on Windows, so the memory is copied.
pub(crate) fn resize(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let backing = match store {
        Store::Named { .. } => Backing::Named,
        Store::File { path, .. } => Backing::File(path.parent().unwrap_or(path).to_owned()),
    };
    let (new_store, mut new_mapping) = super::create(&backing, len, None)?;
    let kept = mapping.len().min(new_mapping.len());
    // SAFETY: `create` maps for writing, and no other code has the new memory or its locator.
    let target = unsafe { new_mapping.bytes_mut() };
    // SAFETY: the caller has exclusive access to the mapping, and has returned no locator of the memory.
    let source = unsafe { mapping.bytes() };
    target[..kept].copy_from_slice(&source[..kept]);
    // Drops the old view before its object.
    *mapping = new_mapping;
    *store = new_store;
    Ok(())
}

/// Returns the access rights for a view. An object that is opened for reading only can't be mapped for writing.
fn rights(access: Access) -> FILE_MAP {
    match access {
        Access::ReadOnly => FILE_MAP_READ,
        Access::ReadWrite => FILE_MAP_READ | FILE_MAP_WRITE,
        Access::CopyOnWrite => FILE_MAP_COPY,
    }
}

/// Maps an object, which must have at least `len` bytes.
fn view(object: &OwnedHandle, len: usize, access: Access) -> io::Result<Mapping> {
    // SAFETY: the handle is open; the system chooses free address space, and refuses a length beyond the object's.
    let address = unsafe { MapViewOfFile(object.as_raw_handle(), rights(access), 0, 0, len.max(1)) };
    if address.Value.is_null() {
        return Err(io::Error::last_os_error());
    }
    Ok(Mapping::from_view(View(address), len))
}

fn open_named(name: &str, access: Access) -> io::Result<OwnedHandle> {
    let wide = wide(name.as_ref());
    // SAFETY: `wide` ends with a zero and lives during the call.
    let object = unsafe { OpenFileMappingW(rights(access), 0, wide.as_ptr()) };
    if object.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new handle that no other code closes.
    Ok(unsafe { OwnedHandle::from_raw_handle(object) })
}

fn map(file: &File, len: usize, access: Access) -> io::Result<Mapping> {
    let mut options = MmapOptions::new();
    let options = options.len(len.max(1));
    Ok(Mapping::from_mmap(match access {
        Access::ReadOnly => options.map_raw_read_only(file)?,
        Access::ReadWrite => options.map_raw(file)?,
        Access::CopyOnWrite => super::mapping::copy_on_write(options, file)?,
    }))
}

/// Maps the memory of a locator.
pub(super) fn attach(locator: &Locator, len: usize, access: Access) -> Result<Mapping, AttachError> {
    let what = || locator.to_string();
    let unreachable = |source| AttachError::Unreachable { what: what(), source };
    let map_failed = |source| AttachError::Map {
        what: what(),
        len,
        source,
    };
    match locator {
        Locator::Name(name) => {
            let object = open_named(name, access).map_err(unreachable)?;
            if object_size(&object, access).map_err(map_failed)? < len {
                return Err(AttachError::Replaced { what: what() });
            }
            view(&object, len, access).map_err(map_failed)
        }
        Locator::Path(path) => {
            let write = access == Access::ReadWrite;
            let file = File::options()
                .read(true)
                .write(write)
                .open(path)
                .map_err(unreachable)?;
            if file.metadata().map_err(unreachable)?.len() < len as u64 {
                return Err(AttachError::Replaced { what: what() });
            }
            map(&file, len, access).map_err(map_failed)
        }
        Locator::Descriptor { .. } | Locator::File { .. } => {
            Err(unreachable(io::ErrorKind::Unsupported.into()))
        }
    }
}

/// Returns the bytes of an object, rounded up to whole pages. The system only reports them for a view of all of it.
fn object_size(object: &OwnedHandle, access: Access) -> io::Result<usize> {
    // SAFETY: as in `view`; a length of 0 maps all.
    let address = unsafe { MapViewOfFile(object.as_raw_handle(), rights(access), 0, 0, 0) };
    if address.Value.is_null() {
        return Err(io::Error::last_os_error());
    }
    let view = View(address);
    let mut info = MEMORY_BASIC_INFORMATION::default();
    // SAFETY: the function accepts any address, and writes at most the size of `info` into it.
    let written = unsafe { VirtualQuery(view.0.Value, &raw mut info, size_of_val(&info)) };
    match written {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(info.RegionSize),
    }
}

/// Releases the whole pages inside `bytes` without writing them to the paging file. Their contents are unspecified afterwards.
pub(crate) fn release_pages(bytes: &mut [u8]) {
    /// The page size of all Windows targets of Rust. With larger pages, the call only fails.
    const PAGE: usize = 4096;
    let start = bytes.as_ptr().align_offset(PAGE);
    let Some(inner) = bytes.get_mut(start..) else {
        return;
    };
    let len = inner.len() / PAGE * PAGE;
    if len == 0 {
        return;
    }
    // SAFETY: the range is whole pages inside an exclusively borrowed slice, so no other reference into it exists.
    // MEM_RESET leaves it mapped and committed, with its contents or zeros: any bytes are valid u8. If it fails, it has no
    // effect, and the pages stay.
    let _ = unsafe {
        VirtualAlloc(
            inner.as_mut_ptr().cast::<c_void>(),
            len,
            MEM_RESET,
            PAGE_READWRITE,
        )
    };
}

/// Has no effect: pages are allocated when they are touched.
#[cfg(feature = "zstd")]
pub(crate) fn populate(_bytes: &mut [u8]) {}

/// Returns the bytes of the machine's memory, and the bytes of memory and paging file that can still be committed.
pub(crate) fn machine_memory() -> Option<(u64, u64)> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: `status` is valid for writes and has its size in its first field.
    let succeeded = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (succeeded != 0).then_some((status.ullTotalPhys, status.ullAvailPageFile))
}

/// Returns the bytes that this user may still write to the disk of `dir`.
pub(super) fn disk_available(dir: &Path) -> Option<u64> {
    let wide = wide(dir.as_os_str());
    let mut available = 0;
    // SAFETY: `wide` ends with a zero and lives during the call; `available` is valid for writes, and the others are optional.
    let succeeded = unsafe {
        GetDiskFreeSpaceExW(
            wide.as_ptr(),
            &raw mut available,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    (succeeded != 0).then_some(available)
}

/// Returns the volume and the index of a file. No other file has the same while this one is open.
pub(super) fn file_id(file: &File) -> io::Result<(u64, u64)> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and `info` valid for writes.
    match unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok((
            u64::from(info.dwVolumeSerialNumber),
            u64::from(info.nFileIndexHigh) << 32 | u64::from(info.nFileIndexLow),
        )),
    }
}

/// Encodes text for the system: UTF-16 with a trailing zero.
fn wide(text: &std::ffi::OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

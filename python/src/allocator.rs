//! Whether `malloc` is that of glibc, whose memory may be adopted.

/// Returns whether the program's `malloc` and `free` are those of glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn is_glibc() -> bool {
    imp::is_glibc()
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn is_glibc() -> bool {
    false
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    #![allow(unsafe_code, reason = "asks the dynamic linker where functions come from")]

    use std::ffi::CStr;
    use std::mem::MaybeUninit;

    pub(super) fn is_glibc() -> bool {
        // A library that is loaded before it replaces these: jemalloc, or a sanitizer.
        [c"malloc", c"realloc", c"free"]
            .iter()
            .all(|name| file_of(name).is_some_and(|file| of_glibc(&file)))
    }

    fn of_glibc(file: &str) -> bool {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.starts_with("libc.so.6") || name.starts_with("libc-2.")
    }

    /// Returns the file of the library whose function of this name the program uses.
    fn file_of(name: &CStr) -> Option<String> {
        // SAFETY: the name is a C string, and the handle one that the function knows.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if address.is_null() {
            return None;
        }
        let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: `info` has room for the result. The function takes any address.
        let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
        // SAFETY: all zeros are a value of this struct of pointers, and the function has written one if it has found the library.
        let info = unsafe { info.assume_init() };
        if found == 0 || info.dli_fname.is_null() {
            return None;
        }
        // SAFETY: the function has set this to the name of a library that is loaded: libraries with `malloc` stay.
        let file = unsafe { CStr::from_ptr(info.dli_fname) };
        Some(file.to_string_lossy().into_owned())
    }
}

//! A place of its own for programs that run under wine.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::outcome::Error;

/// Debian's 64-bit loader. Its wrapper would want the 32-bit one, too.
pub(super) const PROGRAM: &str = "/usr/lib/wine/wine64";
const SERVER: &str = "/usr/lib/wine/wineserver";

/// What Rust's standard library imports and wine before 8.13 does not have.
const RANDOM: &str = r"
__declspec(dllimport) unsigned char __stdcall SystemFunction036(void *, unsigned long);
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *to, unsigned long long count) {
    while (count > 0) {
        unsigned long part = count > 0x40000000 ? 0x40000000 : (unsigned long)count;
        if (!SystemFunction036(to, part)) return 0;
        to += part;
        count -= part;
    }
    return 1;
}
";

fn prefix(dir: &Path) -> PathBuf {
    dir.join("wineprefix")
}

/// Lets a program run in the prefix below `dir`, without a screen and with no talk of wine's own.
pub(super) fn in_prefix(cmd: Cmd, dir: &Path) -> Cmd {
    cmd.without(&["DISPLAY"])
        .env("WINEPREFIX", prefix(dir))
        .env("WINEARCH", "win64")
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=")
        .env("WINEDEBUG", "-all")
        // Where tests find out what they run on.
        .env("UNDER_WINE", "1")
}

/// Makes the prefix, once: no test's time limit is to pay for it.
pub(super) fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |e: std::io::Error| Error::failed(format!("{what}: {e}"))
    };
    let place = prefix(dir);
    let system = place.join("drive_c/windows/system32");
    if !system.join("kernel32.dll").exists() {
        fs::create_dir_all(&place).map_err(failed(&place))?;
        in_prefix(Cmd::new(PROGRAM).args(["wineboot", "-i"]), dir).run()?;
        in_prefix(Cmd::new(SERVER).args(["-w"]), dir).run()?;
    }
    // A crash ends the process with its own status; wine would start its debugger, which leaves another one.
    let key = r"HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug";
    let none = ["add", key, "/v", "Debugger", "/t", "REG_SZ", "/d", "none", "/f"];
    in_prefix(Cmd::new(PROGRAM).args(["reg"]).args(none), dir).stdout()?;
    let library = system.join("bcryptprimitives.dll");
    if !library.exists() {
        let source = dir.join("bcryptprimitives.c");
        fs::write(&source, RANDOM).map_err(failed(&source))?;
        Cmd::new("x86_64-w64-mingw32-gcc")
            .args(["-shared", "-O1", "-o"])
            .args([&library, &source])
            .args(["-ladvapi32"])
            .run()?;
    }
    Ok(())
}

/// Ends whatever runs in the prefix below `dir`, wine's own services as well; gives the processes that were still there
/// and had been started from below `programs`.
///
/// Who is killed while he starts a process may leave one of Unix's behind that has not become one of Windows's: a
/// fork that waits for itself, and that nobody else knows of. Those are ended, too, and don't count.
pub(super) fn end(dir: &Path, programs: &OsStr) -> Result<Vec<u32>, Error> {
    let mut left = processes(dir, programs);
    in_prefix(Cmd::new(SERVER).args(["-k"]), dir).run()?;
    in_prefix(Cmd::new(SERVER).args(["-w"]), dir).run()?;
    let unknown = processes(dir, programs);
    for pid in &unknown {
        Cmd::new("kill").args(["-KILL", &pid.to_string()]).run()?;
    }
    left.retain(|pid| !unknown.contains(pid));
    Ok(left)
}

/// Processes in the prefix below `dir` that were started from a file below `program`, or from it.
pub(super) fn processes(dir: &Path, program: &OsStr) -> Vec<u32> {
    let mark = format!("WINEPREFIX={}", prefix(dir).display());
    // In the form that Windows gives to paths.
    let program = program.to_string_lossy().replace('/', r"\");
    let has = |file: &Path, what: &str| {
        let text = fs::read(file).unwrap_or_default();
        text.split(|byte| *byte == 0)
            .any(|part| String::from_utf8_lossy(part).replace('/', r"\").contains(what))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|process| {
        let path = process.path();
        has(&path.join("environ"), &mark.replace('/', r"\")) && has(&path.join("cmdline"), &program)
    });
    ours.filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}

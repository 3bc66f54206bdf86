//! The cost of sharing a model. Each measure is compared with its floor in the same run.
//!
//! Run it with `cargo xtask bench shm [--quick] [--bytes N]`. A row shows whether its target was missed; only a measure that
//! could not be taken fails the run.

#[cfg(all(target_os = "linux", feature = "rkyv"))]
mod archives;
#[cfg(target_os = "linux")]
#[path = "../../../benchmarks/arguments.rs"]
mod arguments;
#[cfg(target_os = "linux")]
mod attaching;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod collections;
#[cfg(all(target_os = "linux", feature = "zstd"))]
mod loading;
#[cfg(target_os = "linux")]
mod many;
#[cfg(target_os = "linux")]
mod model;
#[cfg(target_os = "linux")]
mod moving;
#[cfg(target_os = "linux")]
mod pages;
#[cfg(target_os = "linux")]
mod python;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod residence;
#[cfg(target_os = "linux")]
#[path = "../../../benchmarks/rows.rs"]
mod rows;
#[cfg(target_os = "linux")]
mod sharing;

/// Why a measure could not be taken.
#[cfg(target_os = "linux")]
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The size of the measures.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Bytes of the model.
    bytes: usize,
    /// The number of rounds, of which the best counts. Few are enough because `cargo xtask bench` runs this program several
    /// times.
    rounds: usize,
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Failure> {
    if child::serve()? {
        return Ok(());
    }
    let size = size(&arguments::Arguments::from_env(&[])?);
    let mut report = report::Report::new(size.bytes);
    sharing::measure(size, &mut report)?;
    python::measure(size, &mut report)?;
    moving::measure(size, &mut report)?;
    attaching::measure(size, &mut report)?;
    many::measure(size, &mut report)?;
    collections::measure(size, &mut report)?;
    #[cfg(feature = "rkyv")]
    archives::measure(size, &mut report)?;
    #[cfg(not(feature = "rkyv"))]
    report.skipped("attach, archive", "built without the feature rkyv");
    residence::measure(size, &mut report)?;
    pages::measure(size, &mut report)?;
    #[cfg(feature = "zstd")]
    loading::measure(size, &mut report)?;
    #[cfg(not(feature = "zstd"))]
    report.skipped("load_shared, compressed", "built without the feature zstd");
    report.close();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the measures read /proc of Linux");
}

/// Returns the size for the arguments. `cargo test` runs a smoke test.
#[cfg(target_os = "linux")]
fn size(args: &arguments::Arguments) -> Size {
    let size = match args.is_bench && !args.is_quick {
        true => Size {
            bytes: 256 << 20,
            rounds: 3,
        },
        false => Size {
            bytes: 32 << 20,
            rounds: 2,
        },
    };
    Size {
        bytes: args.bytes.unwrap_or(size.bytes).max(1 << 20),
        ..size
    }
}

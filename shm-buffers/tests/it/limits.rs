//! Small files that declare huge contents are refused in bounded memory.

use std::error::Error;
use std::fs;
#[cfg(feature = "zstd")]
use std::path::Path;

use shm_buffers::{
    Backing, Buffer, Image, LoadOptions, LoadSharedError, OpenError, inspect, load_safetensors, share,
};

use crate::mapped;

/// Returns the length and the header, padded to `padded` bytes, of a safetensors file with one tensor of `len` bytes.
fn header(len: usize, padded: usize) -> Vec<u8> {
    let text = format!("{{\"w\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[0,{len}]}}}}");
    let mut text = text.into_bytes();
    text.resize(padded, b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

fn too_long(result: Result<impl Sized, OpenError>, wanted: usize) -> bool {
    matches!(result, Err(OpenError::HeaderTooLarge { len, limit, .. }) if len == wanted && limit == 8 << 20)
}

#[test]
fn a_long_header_is_refused_before_it_is_parsed() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("long");
    let long = (8 << 20) + 1;
    fs::write(&path, [header(3, long), vec![7; 3]].concat())?;

    let unpacked = |error| match error {
        LoadSharedError::Open(error) => error,
        other => panic!("another error: {other}"),
    };
    let options = LoadOptions::new();
    assert!(too_long(mapped::open(&path), long));
    assert!(too_long(mapped::open_safetensors(&path), long));
    assert!(too_long(
        load_safetensors(&path, &Backing::Auto).map_err(unpacked),
        long
    ));
    assert!(too_long(inspect(&path, &options).map_err(unpacked), long));
    assert!(too_long(
        Image::load_shared(&path, &Backing::Auto).map_err(unpacked),
        long
    ));
    assert!(too_long(
        Image::verify_file(&path, &options).map_err(unpacked),
        long
    ));
    let message = mapped::open(&path).err().map(|error| error.to_string());
    assert!(message.is_some_and(|message| message.contains("max_header_bytes")));

    let options = options.max_header_bytes(long);
    let image = Image::load_shared_with(&path, &options)?;
    assert_eq!(image.tensors()?.buffer::<u8>("w")?[..], [7; 3]);
    assert_eq!(inspect(&path, &options)?.tensors()[0].byte_len(), 3);
    assert!(Image::from_segment(image.segment().clone()).tensors().is_err());
    Ok(())
}

#[test]
fn the_number_of_buffers_has_no_default_limit() -> Result<(), Box<dyn Error>> {
    let one: Buffer<u8> = vec![1].into();
    let model: Vec<(String, Buffer<u8>)> = (0..100_000).map(|i| (i.to_string(), one.clone())).collect();
    let named: std::collections::BTreeMap<String, Buffer<u8>> =
        (0..100_000).map(|i| (i.to_string(), vec![1].into())).collect();
    assert_eq!(
        share(&model, &Backing::Auto)?
            .load::<Vec<(String, Buffer<u8>)>>()?
            .len(),
        100_000
    );
    let image = share(&named, &Backing::Auto)?;
    let attached = Image::attach(&image.handle()?)?;
    assert_eq!(
        attached.load::<std::collections::BTreeMap<String, Buffer<u8>>>()?,
        named
    );
    // Also if the header comes from a file: small buffers of such a model have no names.
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("many");
    image.save(&path)?;
    let info = inspect(&path, &LoadOptions::new())?;
    let names: Vec<&str> = info.tensors().iter().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["packed", "skeleton"]);
    Ok(())
}

#[test]
fn max_bytes_limits_a_plain_file() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("plain");
    share(&Buffer::from(vec![1.0f64; 1000]), &Backing::Auto)?.save(&path)?;
    let len = fs::metadata(&path)?.len();
    let at = |limit| Image::load_shared_with(&path, &LoadOptions::new().max_bytes(limit));
    assert!(at(len).is_ok());
    let refused = at(len - 1);
    assert!(
        matches!(&refused, Err(LoadSharedError::TooLarge { needed, limit, .. })
            if *needed == len && *limit == len - 1),
        "{refused:?}"
    );
    assert!(refused.is_err_and(|e| e.to_string().contains("max_bytes")));
    Ok(())
}

/// Writes a compressed image of `frames` frames of `frame` bytes, nearly all zeros, and returns the size of its content.
#[cfg(feature = "zstd")]
fn zeros(path: &Path, frame: usize, frames: usize) -> Result<usize, Box<dyn Error>> {
    use std::io::{BufWriter, Write};

    let plain = frame * frames;
    let mut first = header(plain - 8 - 120, 120);
    first.resize(frame, 0);
    let first = zstd::bulk::compress(&first, 1)?;
    let rest = zstd::bulk::compress(&vec![0; frame], 1)?;
    let mut file = BufWriter::new(fs::File::create(path)?);
    let mut table = Vec::new();
    for bytes in std::iter::once(&first).chain(std::iter::repeat_n(&rest, frames - 1)) {
        file.write_all(bytes)?;
        table.extend(u32::try_from(bytes.len())?.to_le_bytes());
        table.extend(u32::try_from(frame)?.to_le_bytes());
    }
    file.write_all(&0x184D_2A5E_u32.to_le_bytes())?;
    file.write_all(&u32::try_from(table.len() + 9)?.to_le_bytes())?;
    file.write_all(&table)?;
    file.write_all(&u32::try_from(frames)?.to_le_bytes())?;
    file.write_all(&[0])?;
    file.write_all(&0x8F92_EAB1_u32.to_le_bytes())?;
    file.flush()?;
    Ok(plain)
}

#[cfg(feature = "zstd")]
#[test]
fn a_decompression_bomb_is_refused_by_default() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("bomb");
    let plain = zeros(&path, 4 << 20, 512)?;
    assert!(fs::metadata(&path)?.len() < 100_000);
    let refused = Image::load_shared(&path, &Backing::Auto);
    assert!(
        matches!(&refused, Err(LoadSharedError::TooLarge { needed, limit, .. })
            if *needed == plain as u64 && *limit == 256 << 20),
        "{refused:?}"
    );
    let bytes = fs::read(&path)?;
    let refused = Image::decode(&bytes, &Backing::Auto);
    assert!(
        matches!(&refused, Err(LoadSharedError::TooLarge { .. })),
        "{refused:?}"
    );

    let small = zeros(&path, 1 << 20, 20)?;
    assert!(Image::load_shared(&path, &Backing::Auto).is_ok());
    let limited = LoadOptions::new().max_bytes(small as u64 - 1);
    let refused = Image::load_shared_with(&path, &limited);
    assert!(
        matches!(&refused, Err(LoadSharedError::TooLarge { .. })),
        "{refused:?}"
    );
    Ok(())
}

/// Tests that measure the peak memory of a process of their own.
#[cfg(all(target_os = "linux", feature = "zstd"))]
mod memory {
    use std::process::{Command, Output};

    use super::*;
    use crate::children;

    /// Runs the tool with so little address space that allocating the declared size of a file fails.
    fn tool(dir: &Path, args: &[&str]) -> std::io::Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 200000 && exec \"$@\"", "sh"]);
        let command = command.arg(env!("CARGO_BIN_EXE_shm-image")).args(args);
        command.current_dir(dir).output()
    }

    #[test]
    fn the_tool_lists_and_verifies_large_images_in_little_memory() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let dir = dir.path();
        // Many small frames, and a few large ones.
        for (frame, frames) in [(4 << 20, 128), (64 << 20, 8)] {
            let plain = zeros(&dir.join("bomb"), frame, frames)?;
            let listed = tool(dir, &["list", "bomb"])?;
            let output = String::from_utf8_lossy(&listed.stdout);
            let line = format!("U8\t[{}]", plain - 128);
            assert!(listed.status.success() && output.contains(&line), "{listed:?}");
            // The image has no checksum: the tool reports that after it has read all of the file.
            let verified = tool(dir, &["verify", "bomb"])?;
            let message = String::from_utf8_lossy(&verified.stderr);
            assert!(
                verified.status.code() == Some(1) && message.contains("no checksum"),
                "{verified:?}"
            );
            let converted = tool(dir, &["convert", "bomb", "out"])?;
            let message = String::from_utf8_lossy(&converted.stderr);
            assert!(
                message.contains("exceeds the limit of 268435456"),
                "{converted:?}"
            );
        }
        let long = dir.join("long");
        fs::write(&long, header(0, 99_000_000))?;
        let listed = tool(dir, &["list", "long"])?;
        let message = String::from_utf8_lossy(&listed.stderr);
        assert!(message.contains("exceeds the limit of 8388608"), "{listed:?}");
        Ok(())
    }

    /// Returns the peak memory of this process, in bytes.
    fn peak() -> Result<usize, Box<dyn Error>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: usize = line.ok_or("no peak")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    #[test]
    fn the_most_expensive_header_takes_bounded_memory() -> Result<(), Box<dyn Error>> {
        if let Some(path) = children::part() {
            let path = Path::new(&path);
            // Metadata takes the most memory: each short entry becomes two strings.
            let mut text = String::from("{\"__metadata__\":{");
            for i in 0.. {
                let entry = format!("\"{i:x}\":\"\",");
                if text.len() + entry.len() + 6 > 8 << 20 {
                    break;
                }
                text += &entry;
            }
            text += "\"x\":\"\"}}";
            fs::write(
                path,
                [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat(),
            )?;
            drop(text);
            let before = peak()?;
            assert!(inspect(path, &LoadOptions::new())?.metadata().len() > 500_000);
            let more = peak()? - before;
            assert!(more < 256 << 20, "{more} bytes for a header of 8 MiB");
            // A header that is twelve times as long is refused before it is read.
            fs::write(path, header(0, 99_000_000))?;
            let before = peak()?;
            assert!(Image::load_shared(path, &Backing::Auto).is_err());
            assert!(inspect(path, &LoadOptions::new()).is_err());
            assert!(mapped::open(path).is_err());
            let more = peak()? - before;
            assert!(more < 16 << 20, "{more} bytes for a header that is refused");
            children::report_success();
            return Ok(());
        }
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("long").to_string_lossy().into_owned();
        let test = "limits::memory::the_most_expensive_header_takes_bounded_memory";
        children::assert_success(&mut children::again(&[], test, &path));
        Ok(())
    }
}

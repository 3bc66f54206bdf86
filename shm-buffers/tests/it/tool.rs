//! The program `shm-image`.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

use shm_buffers::{Backing, Buffer, Image, share};

fn run(dir: &Path, args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_shm-image"))
        .args(args)
        .current_dir(dir)
        .output()
}

/// Returns the standard output of a run that must succeed without any error output.
fn output(dir: &Path, args: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = run(dir, args)?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the error output of a run that must fail with this status: one line.
fn error_line(dir: &Path, status: i32, args: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = run(dir, args)?;
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let line = String::from_utf8(output.stderr)?;
    assert!(output.stdout.is_empty() && line.lines().count() == 1, "{line}");
    Ok(line)
}

#[test]
fn the_tool_lists_verifies_and_converts_images() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let model = (Buffer::from(vec![0.5f32; 100_000]), Buffer::from(vec![7u8; 3]));
    share(&model, &Backing::Auto)?.save(dir.join("plain"))?;

    let listed = output(dir, &["list", "plain"])?;
    assert!(
        listed.contains("F32\t[100000]\t400000\t0\nU8\t[3]\t3\t1\n"),
        "{listed}"
    );
    output(dir, &["convert", "plain", "small", "--compress", "3"])?;
    assert!(std::fs::metadata(dir.join("small"))?.len() < 40_000);
    assert_eq!(output(dir, &["list", "small"])?, listed);
    output(dir, &["convert", "small", "again"])?;
    assert!(std::fs::read(dir.join("plain"))? == std::fs::read(dir.join("again"))?);
    for file in ["plain", "small", "again"] {
        assert!(output(dir, &["verify", file])?.contains("intact"));
    }
    assert!(
        Image::load_shared(dir.join("again"), &Backing::Auto)?.load::<(Buffer<f32>, Buffer<u8>)>()? == model
    );
    Ok(())
}

#[test]
fn exit_codes_distinguish_damage_and_wrong_usage() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    share(&Buffer::from(vec![1.0f64; 9]), &Backing::Auto)?.save(dir.join("plain"))?;
    let mut bytes = std::fs::read(dir.join("plain"))?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(dir.join("damaged"), &bytes)?;
    std::fs::write(dir.join("text"), "hello, world")?;

    assert!(error_line(dir, 1, &["verify", "damaged"])?.contains("checksum"));
    assert!(error_line(dir, 1, &["verify", "missing"])?.contains("missing"));
    assert!(error_line(dir, 1, &["list", "text"])?.contains("text"));
    assert!(error_line(dir, 1, &["convert", "text", "out"])?.contains("text"));
    assert!(error_line(dir, 1, &["convert", "plain", "."])?.contains("directory"));
    for args in [
        &[][..],
        &["list"],
        &["frobnicate", "x"],
        &["verify", "a", "b"],
        &["convert", "plain", "out", "--compress", "much"],
        &["convert", "plain", "out", "--fast", "1"],
    ] {
        assert!(error_line(dir, 2, args)?.contains("help"));
    }
    assert!(output(dir, &["help"])?.contains("Exit status"));
    Ok(())
}

//! `shm-image`: lists, verifies and converts model images.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use shm_buffers::{Compression, Image, LoadOptions, Order, TensorInfo, inspect};

const HELP: &str = "\
Usage: shm-image list FILE          what is in a model image, a safetensors or an npy file
       shm-image verify FILE        compares an image with its checksums
       shm-image convert FROM TO    makes a plain or a compressed image of either
       shm-image help               this text

  --compress LEVEL       with convert: compress TO (zstd, seekable)
  --max-bytes N          with convert: load up to N bytes, decompressed; without it, a compressed image may have 128
                         times its size, or 256 MiB
  --max-header-bytes N   parse headers of up to N bytes; without it, of 8 MiB

`list` reads the header only. `verify` reads all of the file and keeps little of it in memory. `convert` loads the
image into memory, or into a file in the temporary directory if there is no room.

Exit status: 0 all well, 1 the file is damaged or can't be read or written, 2 wrong usage.
";

enum Verb {
    List(OsString),
    Verify(OsString),
    Convert { from: OsString, to: OsString },
    Help,
}

#[derive(Default)]
struct Options {
    compression: Option<Compression>,
    load: LoadOptions,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (verb, options) = match parse(&args) {
        Ok(parsed) => parsed,
        Err(wrong) => {
            eprintln!("shm-image: {wrong}; `shm-image help` tells the usage");
            return ExitCode::from(2);
        }
    };
    let result = match &verb {
        Verb::List(file) => list(Path::new(file), &options),
        Verb::Verify(file) => verify(Path::new(file), &options),
        Verb::Convert { from, to } => convert(Path::new(from), Path::new(to), &options),
        Verb::Help => Ok(HELP.to_owned()),
    };
    // A reader that has gone needs no output.
    match result.map(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shm-image: {}", in_one_line(&*error));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[OsString]) -> Result<(Verb, Options), String> {
    let (verb, rest) = args.split_first().ok_or("no verb given")?;
    let is = |wanted: &[&str]| wanted.iter().any(|wanted| verb == wanted);
    if is(&["help", "--help", "-h"]) {
        return Ok((Verb::Help, Options::default()));
    }
    let verb = verb.to_string_lossy();
    let wrong = || format!("wrong arguments for `{verb}`");
    let (mut files, mut options) = (Vec::new(), Options::default());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let Some(option) = word.to_str().filter(|word| word.starts_with("--")) else {
            files.push(word.clone());
            continue;
        };
        let value = rest.next().ok_or_else(wrong)?.to_string_lossy();
        let load = options.load.clone();
        match (option, &*verb) {
            ("--compress", "convert") => options.compression = Some(Compression::level(number(&value)?)),
            ("--max-bytes", "convert") => options.load = load.max_bytes(number(&value)?),
            ("--max-header-bytes", _) => options.load = load.max_header_bytes(number(&value)?),
            _ => return Err(wrong()),
        }
    }
    let verb = match (&*verb, files.as_slice()) {
        ("list", [file]) => Verb::List(file.clone()),
        ("verify", [file]) => Verb::Verify(file.clone()),
        ("convert", [from, to]) => Verb::Convert {
            from: from.clone(),
            to: to.clone(),
        },
        ("list" | "verify" | "convert", _) => return Err(wrong()),
        (verb, _) => return Err(format!("unknown verb `{verb}`")),
    };
    Ok((verb, options))
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is no number that fits here"))
}

fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        // Some errors repeat what theirs say.
        if !text.ends_with(&reason) {
            text += ": ";
            text += &reason;
        }
        source = error.source();
    }
    text.replace(['\n', '\r'], " ")
}

fn list(path: &Path, options: &Options) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    let info = inspect(path, &options.load)?;
    let mut metadata: Vec<_> = info.metadata().iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        writeln!(text, "# {}: {}", key.escape_debug(), value.escape_debug())?;
    }
    for tensor in info.tensors() {
        line(&mut text, tensor)?;
    }
    Ok(text)
}

/// Type, shape, bytes and name, with tabs in between.
fn line(text: &mut String, tensor: &TensorInfo) -> std::fmt::Result {
    let order = match tensor.order() {
        Order::C => "",
        Order::Fortran => " fortran",
    };
    writeln!(
        text,
        "{}\t{:?}{order}\t{}\t{}",
        tensor.dtype(),
        tensor.shape(),
        tensor.bytes(),
        tensor.name().escape_debug()
    )
}

fn verify(path: &Path, options: &Options) -> Result<String, Box<dyn Error>> {
    let bytes = Image::verify_file(path, &options.load)?;
    Ok(format!("{}: {bytes} bytes are intact\n", path.display()))
}

fn convert(from: &Path, to: &Path, options: &Options) -> Result<String, Box<dyn Error>> {
    let image = Image::load_shared_with(from, &options.load)?;
    // Not an image of something else: that it is a safetensors file is what both forms promise.
    image.tensors()?;
    match options.compression {
        Some(compression) => image.save_compressed(to, compression)?,
        None => image.save(to)?,
    }
    Ok(format!(
        "{}: {} bytes from {}\n",
        to.display(),
        std::fs::metadata(to)?.len(),
        from.display()
    ))
}

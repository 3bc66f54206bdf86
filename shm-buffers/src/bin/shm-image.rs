//! `shm-image`: lists, verifies and converts model images.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use shm_buffers::{Compression, Image, LoadOptions, Order, Printable, TensorInfo, WithCauses, inspect};

const HELP: &str = "\
Usage: shm-image list FILE          prints the contents of a model image, a safetensors or an npy file
       shm-image verify FILE        compares an image with its checksums
       shm-image convert FROM TO    converts a plain or compressed image to either
       shm-image help               prints this text

  --compress LEVEL       with convert: compress TO (zstd, seekable)
  --max-bytes N          with convert: load up to N bytes after decompression (default: for a compressed image, 256 MiB
                         or, if that is more, 128 times the size of the file)
  --max-header-bytes N   parse headers of up to N bytes (default: 8 MiB)

`list` reads the header only. `verify` reads all of the file and keeps little of it in memory. `convert` loads the
image into memory, or into a file in the temporary directory if the memory does not suffice.

Exit status: 0 success, 1 the file is damaged or can't be read or written, 2 wrong usage.
";

enum Command {
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
    let (command, options) = match parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("shm-image: {error}; run `shm-image help` for the usage");
            return ExitCode::from(2);
        }
    };
    let result = match &command {
        Command::List(file) => list(Path::new(file), &options),
        Command::Verify(file) => verify(Path::new(file), &options),
        Command::Convert { from, to } => convert(Path::new(from), Path::new(to), &options),
        Command::Help => Ok(HELP.to_owned()),
    };
    // A failed write is ignored: the reader has closed the pipe.
    match result.map(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{:#}", WithCauses(&*error));
            eprintln!("shm-image: {}", Printable(&error));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[OsString]) -> Result<(Command, Options), String> {
    let (name, rest) = args.split_first().ok_or("missing command")?;
    if ["help", "--help", "-h"].iter().any(|help| name == help) {
        return Ok((Command::Help, Options::default()));
    }
    let name = name.to_string_lossy();
    let wrong = || format!("wrong arguments for `{name}`");
    let (mut files, mut options) = (Vec::new(), Options::default());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let Some(option) = word.to_str().filter(|word| word.starts_with("--")) else {
            files.push(word.clone());
            continue;
        };
        let value = rest.next().ok_or_else(wrong)?.to_string_lossy();
        let load = options.load.clone();
        match (option, &*name) {
            ("--compress", "convert") => options.compression = Some(Compression::level(number(&value)?)),
            ("--max-bytes", "convert") => options.load = load.max_bytes(number(&value)?),
            ("--max-header-bytes", _) => options.load = load.max_header_bytes(number(&value)?),
            _ => return Err(wrong()),
        }
    }
    let command = match (&*name, files.as_slice()) {
        ("list", [file]) => Command::List(file.clone()),
        ("verify", [file]) => Command::Verify(file.clone()),
        ("convert", [from, to]) => Command::Convert {
            from: from.clone(),
            to: to.clone(),
        },
        ("list" | "verify" | "convert", _) => return Err(wrong()),
        (name, _) => return Err(format!("unknown command `{name}`")),
    };
    Ok((command, options))
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a number in the valid range"))
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

/// Writes the type, shape, size in bytes and name of a tensor, separated by tabs.
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
        tensor.byte_len(),
        tensor.name().escape_debug()
    )
}

fn verify(path: &Path, options: &Options) -> Result<String, Box<dyn Error>> {
    let bytes = Image::verify_file(path, &options.load)?;
    Ok(format!("{}: {bytes} bytes are intact\n", path.display()))
}

fn convert(from: &Path, to: &Path, options: &Options) -> Result<String, Box<dyn Error>> {
    let image = Image::load_shared_with(from, &options.load)?;
    // Refuses a file that is not a safetensors file, which both plain and compressed images are.
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

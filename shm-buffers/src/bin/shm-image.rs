//! `shm-image`: lists, verifies and converts model images.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use shm_buffers::{
    Backing, Compression, Image, OpenError, Order, Tensor, Tensors, open_npy, open_safetensors,
};

const HELP: &str = "\
Usage: shm-image list FILE                          what is in a model image, a safetensors or an npy file
       shm-image verify FILE                        compares an image with its checksums
       shm-image convert FROM TO [--compress LEVEL]  makes a plain or a compressed image of either
       shm-image help                               this text

A compressed image (zstd, seekable) is decoded into memory to be looked at.

Exit status: 0 all well, 1 the file is damaged or can't be read or written, 2 wrong usage.
";

enum Verb {
    List(OsString),
    Verify(OsString),
    Convert {
        from: OsString,
        to: OsString,
        compression: Option<Compression>,
    },
    Help,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let verb = match parse(&args) {
        Ok(verb) => verb,
        Err(wrong) => {
            eprintln!("shm-image: {wrong}; `shm-image help` tells the usage");
            return ExitCode::from(2);
        }
    };
    let result = match &verb {
        Verb::List(file) => list(Path::new(file)),
        Verb::Verify(file) => verify(Path::new(file)),
        Verb::Convert {
            from,
            to,
            compression,
        } => convert(Path::new(from), Path::new(to), *compression),
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

fn parse(args: &[OsString]) -> Result<Verb, String> {
    let (verb, rest) = args.split_first().ok_or("no verb given")?;
    let is = |wanted: &[&str]| wanted.iter().any(|wanted| verb == wanted);
    if is(&["help", "--help", "-h"]) {
        return Ok(Verb::Help);
    }
    match (verb.to_string_lossy().as_ref(), rest) {
        ("list", [file]) => Ok(Verb::List(file.clone())),
        ("verify", [file]) => Ok(Verb::Verify(file.clone())),
        ("convert", [from, to]) => Ok(Verb::Convert {
            from: from.clone(),
            to: to.clone(),
            compression: None,
        }),
        ("convert", [from, to, option, level]) if option == "--compress" => {
            let level = level.to_string_lossy();
            let level = level
                .parse()
                .map_err(|_| format!("`{level}` is no compression level"))?;
            Ok(Verb::Convert {
                from: from.clone(),
                to: to.clone(),
                compression: Some(Compression::level(level)),
            })
        }
        (verb @ ("list" | "verify" | "convert"), _) => Err(format!("wrong arguments for `{verb}`")),
        (verb, _) => Err(format!("unknown verb `{verb}`")),
    }
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

/// Maps a plain image, decodes a compressed one.
fn open(path: &Path) -> Result<Image, Box<dyn Error>> {
    match Image::open(path) {
        Err(OpenError::Compressed { .. }) => Ok(Image::load_shared(path, &Backing::Auto)?),
        opened => Ok(opened?),
    }
}

fn list(path: &Path) -> Result<String, Box<dyn Error>> {
    let mut magic = [0; 6];
    let is_npy = std::fs::File::open(path)
        .is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && &magic == b"\x93NUMPY");
    let mut text = String::new();
    if is_npy {
        line(&mut text, &open_npy(path)?)?;
        return Ok(text);
    }
    let tensors: Tensors = match open_safetensors(path) {
        Err(OpenError::Compressed { .. }) => open(path)?.tensors()?,
        opened => opened?,
    };
    let mut metadata: Vec<_> = tensors.metadata().iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        writeln!(text, "# {}: {}", key.escape_debug(), value.escape_debug())?;
    }
    for tensor in &tensors {
        line(&mut text, tensor)?;
    }
    Ok(text)
}

/// Type, shape, bytes and name, with tabs in between.
fn line(text: &mut String, tensor: &Tensor) -> std::fmt::Result {
    let order = match tensor.order() {
        Order::C => "",
        Order::Fortran => " fortran",
    };
    writeln!(
        text,
        "{}\t{:?}{order}\t{}\t{}",
        tensor.dtype(),
        tensor.shape(),
        tensor.bytes().len(),
        tensor.name().escape_debug()
    )
}

fn verify(path: &Path) -> Result<String, Box<dyn Error>> {
    let image = open(path)?;
    image.verify()?;
    Ok(format!(
        "{}: {} bytes are intact\n",
        path.display(),
        image.segment().len()
    ))
}

fn convert(from: &Path, to: &Path, compression: Option<Compression>) -> Result<String, Box<dyn Error>> {
    let image = open(from)?;
    // Not an image of something else: that it is a safetensors file is what both forms promise.
    image.tensors()?;
    match compression {
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

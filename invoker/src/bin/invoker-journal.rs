//! `invoker-journal`: lists and salvages the journals of runs.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use invoker::shm_buffers::{Printable, WithCauses};
use invoker::{Journal, JournalError, Salvage};

const HELP: &str = "\
Usage: invoker-journal list FILE         prints the job and the runs of a journal, and how many bytes are damaged
       invoker-journal salvage FROM TO   copies what is intact of a journal into a new one
       invoker-journal help              prints this text

  --op NAME      with salvage: the op is identified by this name (`Journal::op`)
  --model NAME   with salvage: the model is identified by this name (`Journal::model`)

The torn end of a leader that was killed needs no salvage: the next leader cuts it. `list` works while a leader runs.

Exit status: 0 success, 1 the file can't be read or written, 2 wrong usage.
";

enum Command {
    List(OsString),
    Salvage {
        from: OsString,
        to: OsString,
        options: Salvage,
    },
    Help,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let command = match parse(&args) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("invoker-journal: {error}; run `invoker-journal help` for the usage");
            return ExitCode::from(2);
        }
    };
    // A failed write is ignored: the reader has closed the pipe.
    match run(&command).map(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{:#}", WithCauses(&error));
            eprintln!("invoker-journal: {}", Printable(&error));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[OsString]) -> Result<Command, String> {
    let (name, rest) = args.split_first().ok_or("missing command")?;
    if ["help", "--help", "-h"].iter().any(|help| name == help) {
        return Ok(Command::Help);
    }
    let name = name.to_string_lossy();
    let wrong = || format!("wrong arguments for `{name}`");
    let (mut files, mut options) = (Vec::new(), Salvage::new());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let Some(option) = word.to_str().filter(|word| word.starts_with("--")) else {
            files.push(word.clone());
            continue;
        };
        let value = rest.next().ok_or_else(wrong)?.to_string_lossy();
        options = match (option, &*name) {
            ("--op", "salvage") => options.op(value),
            ("--model", "salvage") => options.model(value),
            _ => return Err(wrong()),
        };
    }
    match (&*name, files.as_slice()) {
        ("list", [file]) => Ok(Command::List(file.clone())),
        ("salvage", [from, to]) => Ok(Command::Salvage {
            from: from.clone(),
            to: to.clone(),
            options,
        }),
        ("list" | "salvage", _) => Err(wrong()),
        (name, _) => Err(format!("unknown command `{name}`")),
    }
}

fn run(command: &Command) -> Result<String, JournalError> {
    match command {
        Command::Help => Ok(HELP.to_owned()),
        Command::List(file) => Ok(format!("{}\n", Journal::info(file)?)),
        Command::Salvage { from, to, options } => {
            let salvaged = options.copy(from, to)?;
            Ok(format!(
                "{}: {} tasks from {}, without {} damaged bytes\n",
                Path::new(to).display(),
                salvaged.tasks,
                Path::new(from).display(),
                salvaged.lost
            ))
        }
    }
}

//! The second example of the guide's chapter on logs.

use std::io::IsTerminal;

use invoker::{Filter, Invoker, Processes};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn op(_: &(), user: u32) -> u32 {
    tracing::info!(user, "recommending");
    tracing::debug!(target: "my_crate", user, "looked up");
    user
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let directives = filter.to_string();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let processes = Processes::new().logs(Filter::covering(&directives));
    let invoker = Invoker::builder(op).model(()).executor(processes).build()?;
    invoker.for_each(0..10, |output| println!("{output:?}"));
    Ok(())
}

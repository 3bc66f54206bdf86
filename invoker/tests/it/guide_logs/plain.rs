//! The first example of the guide's chapter on logs.

use std::io::IsTerminal;

use invoker::Invoker;

fn op(_: &(), user: u32) -> u32 {
    tracing::info!(user, "recommending");
    user
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let invoker = Invoker::builder(op).model(()).build()?;
    invoker.for_each(0..10, |output| println!("{output:?}"));
    Ok(())
}

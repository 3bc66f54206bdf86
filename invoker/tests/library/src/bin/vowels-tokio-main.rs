//! An async program with `#[tokio::main]`. Its workers call `init` within a runtime, too.

use vowels::{Counting, count_async};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    vowels::init();
    let mut arguments = std::env::args().skip(1);
    let counting = match arguments.next().as_deref() {
        Some("direct") => Counting::Direct,
        _ => Counting::InRuntime,
    };
    for count in count_async(arguments.collect(), counting).await? {
        println!("{count:?}");
    }
    Ok(())
}

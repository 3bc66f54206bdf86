//! An async program that calls `init` before it starts a runtime. Its workers have no runtime.

use vowels::{Counting, count_async};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    vowels::init();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut arguments = std::env::args().skip(1);
        let counting = match arguments.next().as_deref() {
            Some("direct") => Counting::Direct,
            _ => Counting::InRuntime,
        };
        for count in count_async(arguments.collect(), counting).await? {
            println!("{count:?}");
        }
        Ok(())
    })
}

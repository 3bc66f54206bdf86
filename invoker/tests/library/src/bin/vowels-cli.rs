//! A program of somebody who uses the library: one line of it is about worker processes.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    vowels::init();
    for count in vowels::count(std::env::args().skip(1).collect())? {
        println!("{count}");
    }
    Ok(())
}

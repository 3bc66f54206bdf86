//! A program that uses the library. Only its first line is about worker processes.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    vowels::init();
    for count in vowels::count(std::env::args().skip(1).collect())? {
        println!("{count}");
    }
    Ok(())
}

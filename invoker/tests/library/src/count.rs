//! [`count`]: counts vowels in worker processes.

use std::error::Error;

use invoker::Invoker;

/// Returns the number of vowels of each text.
///
/// # Errors
/// If worker processes cannot start, or a worker fails.
pub fn count(texts: Vec<String>) -> Result<Vec<usize>, Box<dyn Error>> {
    let vowels =
        |vowels: &String, text: String| text.chars().filter(|letter| vowels.contains(*letter)).count();
    let builder = Invoker::builder(vowels).model("aeiou".to_owned());
    let invoker = builder.workers(2).build()?;
    let counts = invoker.map(texts).collect::<Result<_, _>>()?;
    Ok(counts)
}

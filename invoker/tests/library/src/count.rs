//! [`count`]: the library's work.

use std::error::Error;

use invoker::{Invoker, Workers};

/// How many vowels each text has.
///
/// # Errors
/// What kept worker processes from starting, or one of the texts from being counted.
pub fn count(texts: Vec<String>) -> Result<Vec<usize>, Box<dyn Error>> {
    let vowels =
        |vowels: &String, text: String| text.chars().filter(|letter| vowels.contains(*letter)).count();
    let builder = Invoker::builder(vowels).model("aeiou".to_owned());
    let invoker = builder.workers(Workers::Count(2)).build()?;
    let counts = invoker.map(texts).collect::<Result<_, _>>()?;
    Ok(counts)
}

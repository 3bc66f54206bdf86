//! [`count_async`]: the same for async programs.

use invoker::{Error, Invoker, TaskError};

/// How the op of [`count_async`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// In the op itself.
    Direct,
    /// In a tokio runtime that the op starts.
    InRuntime,
}

/// Returns the number of vowels of each text, or the error of its task.
///
/// # Errors
/// If worker processes cannot start.
pub async fn count_async(
    texts: Vec<String>,
    counting: Counting,
) -> Result<Vec<Result<usize, TaskError>>, Error> {
    let builder = match counting {
        Counting::Direct => Invoker::builder(|letters: &String, text: String| vowels(letters, &text)),
        Counting::InRuntime => {
            Invoker::builder(|letters: &String, text: String| vowels_in_runtime(letters, &text))
        }
    };
    let invoker = builder.model("aeiou".to_owned()).workers(2).build()?;
    let handles: Vec<_> = texts.into_iter().map(|text| invoker.submit(text)).collect();
    let mut counts = Vec::new();
    for handle in handles {
        counts.push(handle.await);
    }
    Ok(counts)
}

fn vowels(letters: &str, text: &str) -> usize {
    text.chars().filter(|letter| letters.contains(*letter)).count()
}

fn vowels_in_runtime(letters: &str, text: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime starts");
    runtime.block_on(async { vowels(letters, text) })
}

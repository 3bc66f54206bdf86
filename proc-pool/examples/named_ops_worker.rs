//! The worker program of `named_ops`: its whole `main` is a list of ops by name.

fn main() {
    proc_pool::Registry::new()
        .op("square", |n: u64| n * n)
        .op("shout", |text: String| text.to_uppercase())
        .serve()
}

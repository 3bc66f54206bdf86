//! The worker program of `named_ops`: its `main` is a list of named ops.

fn main() {
    proc_pool::Registry::new()
        .op("square", |n: u64| n * n)
        .op("shout", |text: String| text.to_uppercase())
        .serve()
}

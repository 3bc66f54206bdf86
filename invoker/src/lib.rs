//! One large read-only model, a million small tasks, isolated worker processes.

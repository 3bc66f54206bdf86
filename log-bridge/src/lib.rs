//! A bounded, never-blocking bridge for tracing events from workers to their leader.

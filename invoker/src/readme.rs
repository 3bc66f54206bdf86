//! The README's example, compiled as a doctest.
#![doc = include_str!("../../README.md")]

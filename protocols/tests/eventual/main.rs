//! Replicated sets in a small world of their own: scripted (`scripts/`) and random.

mod golden;
mod random;
mod world;

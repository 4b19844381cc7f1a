//! Storage of one module.

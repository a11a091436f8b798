//! Incremental equals full.

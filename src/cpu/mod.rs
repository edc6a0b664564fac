//! cpu/mod

//! gpu/mod

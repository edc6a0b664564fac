//! speculate/mod

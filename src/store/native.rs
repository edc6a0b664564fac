//! store/native

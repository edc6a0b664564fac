//! store/catalog

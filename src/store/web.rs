//! store/web

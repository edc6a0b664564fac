//! From a file's blocks to a device's layout.

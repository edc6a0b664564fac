//! What the sources of the package say, for tests that compare them with the crate.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file of `web/src`.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web/src").join(file)
}

/// Its text; empty where it is missing.
pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_default()
}

/// Names of an interface's own fields.
pub(crate) fn fields(file: &str, interface: &str) -> BTreeSet<String> {
    let text = read(file);
    let (_, body) = text.split_once(&format!("export interface {interface} ")).expect("the interface");
    let (body, _) = body.split_once("\n}").expect("its end");
    let name = |line: &str| line.trim().split_once(": ").map(|(name, _)| name.trim_end_matches('?').to_owned());
    let is_name = |name: &String| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    body.lines().filter_map(name).filter(is_name).collect()
}

//! What is read and written: stdout, JSON, files.

use foredraft::error::{Error, Result};
use std::io::Write;
use std::path::Path;

/// A line to stdout.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::out(format_args!("{}\n", format_args!($($text)*)))?
    };
}
pub(crate) use say;

/// Writes to stdout. Where nobody reads any more (`| head`) the work is over, and that is no error.
pub(super) fn out(text: std::fmt::Arguments<'_>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| io("stdout", &error)),
    }
}

/// One JSON object to stdout.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| not_json(&error))?;
    say!("{text}");
    Ok(())
}

/// A whole file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| io(&path.display().to_string(), &error))
}

/// A whole file of bytes.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| io(&path.display().to_string(), &error))
}

/// Writes a file whole or not at all: what was there stays until the new one is.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    written.map_err(|error| io(&path.display().to_string(), &error))
}

/// A file of JSON; `name` and `expected` are for the error.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, name: &str, expected: &str) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|error| Error::BadOption {
        name: name.to_owned(),
        found: format!("{}: {error}", path.display()),
        expected: expected.to_owned(),
    })
}

/// Writes JSON into a file.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| not_json(&error))?;
    std::fs::write(path, text + "\n").map_err(|error| io(&path.display().to_string(), &error))
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::Io { what: "JSON".to_owned(), reason: error.to_string() }
}

fn io(what: &str, error: &std::io::Error) -> Error {
    Error::Io { what: what.to_owned(), reason: error.to_string() }
}

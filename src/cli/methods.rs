//! `methods`: every method of speculation that there is.

use super::output::{print_json, say};
use foredraft::error::Result;
use foredraft::speculate::accept::Exactness;
use foredraft::speculate::methods::METHODS;
use serde_json::json;

/// Lists them by kind, in the order of the registry.
pub(super) fn methods(json: bool) -> Result<()> {
    if json {
        return print_json(&json!({ "methods": METHODS }));
    }
    let mut kinds: Vec<&str> = Vec::new();
    for method in METHODS {
        if !kinds.contains(&method.make.key()) {
            kinds.push(method.make.key());
        }
    }
    let width = METHODS.iter().map(|method| method.name.len()).max().unwrap_or(0);
    for (index, kind) in kinds.into_iter().enumerate() {
        let of_kind: Vec<_> = METHODS.iter().filter(|method| method.make.key() == kind).collect();
        if index > 0 {
            say!("");
        }
        say!("{kind}= (trait {})", of_kind[0].make.trait_name());
        for method in of_kind {
            say!("  {:<width$}  {}", method.name, method.about);
            let exactness = method.exactness().map(|exactness| format!("{}; ", Exactness::name(exactness)));
            let needs = if method.needs.is_empty() { "nothing" } else { method.needs };
            let (exactness, paper) = (exactness.unwrap_or_default(), method.paper);
            say!("  {:width$}  {exactness}needs {needs}; test {}; {paper}", "", method.test);
            for option in method.options {
                let (key, about, default) = (option.key, option.about, option.default);
                say!("  {:width$}  {key}={default} ({} to {}): {about}", "", option.min, option.max);
            }
        }
    }
    Ok(())
}

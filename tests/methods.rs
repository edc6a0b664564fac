//! The TypeScript side of the configuration is that of the registry: names, numbers and keys.
//!
//! `FOREDRAFT_UPDATE=1 cargo test --release --test methods` writes `web/src/methods.ts` anew.

#[path = "support/typescript.rs"]
mod typescript;

use foredraft::error::Error;
use foredraft::speculate::SpeculationConfig;
use foredraft::speculate::accept::Exactness;
use foredraft::speculate::methods::METHODS;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use typescript::{fields, path, read};

/// What `web/src/methods.ts` has to be.
fn typescript() -> String {
    let mut text =
        "// Written from the registry of the Rust crate by tests/methods.rs, which says how; do not edit.\n".to_owned();
    // By trait, in the order of the registry.
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for method in METHODS {
        let kind = (method.make.key(), method.make.trait_name());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (key, name) in kinds {
        write!(text, "\n/** What `{key}` may name. */\nexport type {name}Name =").expect("a string");
        for method in METHODS.iter().filter(|method| method.make.key() == key) {
            write!(text, "\n  | \"{}\"", method.name).expect("a string");
        }
        text += ";\n";
    }
    text += "\n/** Numbers of the methods. */\nexport interface MethodOptions {\n";
    for method in METHODS {
        for option in method.options {
            let (key, about, default, min, max) = (option.key, option.about, option.default, option.min, option.max);
            let name = method.name;
            writeln!(text, "  /** `{name}`: {about}; {min} to {max}, default {default}. */\n  {key}?: number;")
                .expect("a string");
        }
    }
    text + "}\n"
}

#[test]
fn typescript_names_every_method_and_number() {
    let expected = typescript();
    if std::env::var_os("FOREDRAFT_UPDATE").is_some() {
        std::fs::write(path("methods.ts"), &expected).expect("written");
    }
    assert!(
        read("methods.ts") == expected,
        "web/src/methods.ts is not that of the registry: run `FOREDRAFT_UPDATE=1 cargo test --release --test methods`, or \
         make it\n{expected}"
    );
}

/// The keys that the engine lists where it is given one that is none.
fn keys() -> BTreeSet<String> {
    let Err(Error::BadOption { expected, .. }) = "no_such_key=1".parse::<SpeculationConfig>() else {
        panic!("a key that is none is an error")
    };
    let list = expected.strip_prefix("off, auto or a list of ").expect("the list of keys");
    list.split(", ").map(|entry| entry.split('=').next().unwrap_or(entry).to_owned()).collect()
}

#[test]
fn typescript_has_every_key() {
    let options = METHODS.iter().flat_map(|method| method.options).map(|option| option.key.to_owned());
    let expected: BTreeSet<String> = keys().difference(&options.collect()).cloned().collect();
    assert_eq!(
        fields("speculation.ts", "SpeculationConfig"),
        expected,
        "keys of SpeculationConfig in web/src/speculation.ts, and those that the engine takes"
    );
}

#[test]
fn typescript_names_every_promise() {
    let all = [
        Exactness::SameTokens,
        Exactness::SameDistribution,
        Exactness::GreedyOnly,
        Exactness::Bounded,
        Exactness::Heuristic,
    ];
    for exactness in all {
        assert_eq!(serde_json::to_value(exactness).expect("JSON"), exactness.name());
    }
    let names = all.map(|exactness| format!("\"{}\"", exactness.name()));
    let line = format!("export type Exactness = {};", names.join(" | "));
    assert!(read("speculation.ts").contains(&line), "web/src/speculation.ts lacks\n{line}");
}

/// A table of the command line and of `methods --json` is only as good as what the files say.
#[test]
fn every_kind_is_named_by_one_key_and_one_trait() {
    let mut traits = BTreeMap::new();
    for method in METHODS {
        let name = traits.entry(method.make.key()).or_insert(method.make.trait_name());
        assert_eq!(*name, method.make.trait_name(), "{}", method.name);
        assert!(keys().contains(method.make.key()), "{} is no key of the configuration", method.make.key());
    }
}

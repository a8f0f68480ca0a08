//! Who may name whom: `bans.deny[].wrappers` of `deny.toml` against the graph of `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// The part of `deny.toml` that is read.
#[derive(Deserialize)]
struct Deny {
    bans: Bans,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

/// `krate` may be depended on by `wrappers` only; without wrappers by nobody.
#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    krate: String,
    #[serde(default)]
    wrappers: BTreeSet<String>,
}

/// The part of `cargo metadata` that is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// Every edge that breaks a rule.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let deny: Deny = toml::from_str(&super::read(&root.join("deny.toml"))?).map_err(|error| format!("deny.toml: {error}"))?;
    Ok(broken(&deny.bans.deny, &edges(root)?))
}

/// Edges of the whole resolved graph, development dependencies left out, as (dependent, dependency).
fn edges(root: &Path) -> Result<BTreeSet<(String, String)>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--all-features", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let names: BTreeMap<&str, &str> = metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let name = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |name| (*name).to_owned());
    // Tests may stand up the layers below them; what ships may not (`exclude-dev` in deny.toml).
    let ships = |edge: &&Edge| edge.dep_kinds.iter().any(|found| found.kind.as_deref() != Some("dev"));
    let of_node =
        |node: &Node| -> Vec<(String, String)> { node.deps.iter().filter(ships).map(|edge| (name(&node.id), name(&edge.pkg))).collect() };
    Ok(metadata.resolve.nodes.iter().flat_map(of_node).collect())
}

fn broken(bans: &[Ban], edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let against = |ban: &Ban| -> Vec<String> {
        let users = edges.iter().filter(|(from, to)| *to == ban.krate && !ban.wrappers.contains(from));
        users.map(|(from, to)| format!("deny.toml: {from} must not depend on {to}")).collect()
    };
    bans.iter().flat_map(against).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(krate: &str, wrappers: &[&str]) -> Ban {
        Ban { krate: krate.to_owned(), wrappers: wrappers.iter().map(|&name| name.to_owned()).collect() }
    }

    fn edge(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn an_edge_outside_the_wrappers_is_found() {
        let bans = [ban("block", &["ledger"]), ban("openssl", &[])];
        let allowed = BTreeSet::from([edge("ledger", "block"), edge("ledger", "policy")]);
        assert!(broken(&bans, &allowed).is_empty());
        let edges = BTreeSet::from([edge("ledger", "block"), edge("provider", "block"), edge("policy", "openssl")]);
        let found = broken(&bans, &edges);
        assert_eq!(found, ["deny.toml: provider must not depend on block", "deny.toml: policy must not depend on openssl"]);
    }

    #[test]
    fn the_rules_name_every_layer() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let deny: Deny = toml::from_str(&super::super::read(&root.join("deny.toml")).unwrap()).unwrap();
        for layer in ["server", "engine", "ledger", "provider", "block", "policy", "testkit"] {
            let name = format!("diaspore-{layer}");
            assert!(deny.bans.deny.iter().any(|ban| ban.krate == name), "no rule for {name}");
        }
        let block = deny.bans.deny.iter().find(|ban| ban.krate == "diaspore-block").unwrap();
        assert!(!block.wrappers.contains("diaspore-provider"), "the provider crate must not see blocks");
    }
}

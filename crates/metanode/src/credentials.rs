//! Provider credentials: first the environment, then `credentials.toml` (mode 0600). Never an argument, never in the configuration.
//!
//! For an account named `aws-main` the environment is `DIASPORE_AWS_MAIN_ACCESS_KEY_ID`, `..._SECRET_ACCESS_KEY` and, for a
//! temporary pair, `..._SESSION_TOKEN`.

use std::collections::BTreeMap;
use std::path::Path;

use diaspore_policy::{ProviderId, ProviderSpec};
use diaspore_provider::{Credentials, S3Credentials};
use serde::{Deserialize, Serialize};

use crate::failure::{Explain, Failure, Outcome};
use crate::home::Home;
use crate::secret;

/// One pair in the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_token: Option<String>,
}

impl Pair {
    fn into_credentials(self) -> S3Credentials {
        let pair = S3Credentials::new(self.access_key_id, self.secret_access_key);
        match self.session_token {
            Some(token) => pair.with_session_token(token),
            None => pair,
        }
    }
}

type Pairs = BTreeMap<ProviderId, Pair>;

/// The pairs of these accounts, as far as there are any.
pub(crate) fn load(home: &Home, specs: &[ProviderSpec]) -> Outcome<Credentials> {
    let mut stored = read(&home.credentials())?;
    let mut found = Credentials::new();
    for spec in specs {
        if let Some(pair) = from_environment(&spec.id)?.or_else(|| stored.remove(&spec.id)) {
            found.insert(spec.id.clone(), pair.into_credentials());
        }
    }
    Ok(found)
}

/// Where the pair of an account comes from, for `providers list`.
pub(crate) fn origin(home: &Home, id: &ProviderId) -> Outcome<&'static str> {
    if from_environment(id)?.is_some() {
        return Ok("environment");
    }
    Ok(if read(&home.credentials())?.contains_key(id) { "file" } else { "none" })
}

/// The same in words, with the names of what to change.
pub(crate) fn origin_text(home: &Home, id: &ProviderId) -> String {
    match origin(home, id) {
        Ok("environment") => format!("{0}_ACCESS_KEY_ID and {0}_SECRET_ACCESS_KEY in the environment", variable_stem(id)),
        Ok("file") => format!("[{id}] in {}", home.credentials().display()),
        _ => "nowhere".to_owned(),
    }
}

/// Stores the pair of an account, read from two files.
pub(crate) fn store(home: &Home, id: &ProviderId, access_key_file: &Path, secret_key_file: &Path) -> Outcome {
    let line = |path: &Path| -> Outcome<String> {
        let text = std::fs::read_to_string(path).explain(|| format!("cannot read {}", path.display()))?;
        let text = text.trim();
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(Failure::usage(format!("{} must hold one word", path.display())));
        }
        Ok(text.to_owned())
    };
    let pair = Pair { access_key_id: line(access_key_file)?, secret_access_key: line(secret_key_file)?, session_token: None };
    let mut pairs = read(&home.credentials())?;
    pairs.insert(id.clone(), pair);
    let text = zeroize::Zeroizing::new(toml::to_string_pretty(&pairs).explain(|| "cannot render the credentials".to_owned())?);
    secret::replace_private(&home.credentials(), text.as_bytes())
}

fn read(path: &Path) -> Outcome<Pairs> {
    if !path.exists() {
        return Ok(Pairs::new());
    }
    let bytes = secret::read_private(path)?;
    let text = std::str::from_utf8(&bytes).explain(|| format!("{} is no text", path.display()))?;
    // The parser's own message would quote the line, secret and all.
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or_else(String::new, |span| format!(" near byte {}", span.start));
        Failure::usage(format!("{} does not parse{at}", path.display()))
            .hint("one table per account: [aws] with access_key_id and secret_access_key")
    })
}

fn from_environment(id: &ProviderId) -> Outcome<Option<Pair>> {
    let stem = variable_stem(id);
    let variable = |what: &str| -> Option<String> {
        let value = std::env::var_os(format!("{stem}_{what}"))?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    };
    match (variable("ACCESS_KEY_ID"), variable("SECRET_ACCESS_KEY")) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Ok(Some(Pair { access_key_id, secret_access_key, session_token: variable("SESSION_TOKEN") }))
        }
        (None, None) => Ok(None),
        _ => Err(Failure::usage(format!("only one of {stem}_ACCESS_KEY_ID and {stem}_SECRET_ACCESS_KEY is set")).hint("set both")),
    }
}

fn variable_stem(id: &ProviderId) -> String {
    format!("DIASPORE_{}", id.as_str().to_ascii_uppercase().replace(['-', '.'], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path()), None).unwrap();
        home.create().unwrap();
        (folder, home)
    }

    #[test]
    fn a_stored_pair_is_found_again() {
        let (folder, home) = home();
        let (access, secret) = (folder.path().join("a"), folder.path().join("s"));
        std::fs::write(&access, "AKIA\n").unwrap();
        std::fs::write(&secret, "shh\n").unwrap();
        let id = ProviderId::new("some-cloud").unwrap();
        store(&home, &id, &access, &secret).unwrap();
        let spec = ProviderSpec::s3(id.clone(), "http://127.0.0.1:1", "b");
        assert!(load(&home, &[spec]).unwrap().get(&id).is_some());
        assert_eq!(origin(&home, &id).unwrap(), "file");
        assert_eq!(origin_text(&home, &id), format!("[some-cloud] in {}", home.credentials().display()));
    }

    #[test]
    fn a_broken_file_is_refused_without_quoting_it() {
        let (_folder, home) = home();
        secret::create_private(&home.credentials(), b"[aws]\naccess_key_id = CANARY\n").unwrap();
        let failure = read(&home.credentials()).map(|_| ()).unwrap_err();
        assert!(!failure.to_string().contains("CANARY"), "{failure}");
    }
}

//! Key pairs, given by value: where they come from (file, environment) is the binary's business.

use std::collections::BTreeMap;
use std::fmt;

use diaspore_policy::ProviderId;
use zeroize::Zeroizing;

/// An S3 key pair. Redacted in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct S3Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl S3Credentials {
    /// A long-lived pair.
    pub fn new(access_key: String, secret_key: String) -> Self {
        Self { access_key, secret_key: Zeroizing::new(secret_key), session_token: None }
    }

    /// Adds the token of a temporary pair.
    #[must_use]
    pub fn with_session_token(mut self, token: String) -> Self {
        self.session_token = Some(Zeroizing::new(token));
        self
    }

    pub(crate) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(crate) fn secret_key(&self) -> &str {
        &self.secret_key
    }

    pub(crate) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(redacted)")
    }
}

/// Key pairs by account.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<ProviderId, S3Credentials>);

impl Credentials {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the pair of an account.
    pub fn insert(&mut self, provider: ProviderId, credentials: S3Credentials) {
        self.0.insert(provider, credentials);
    }

    /// The pair of an account.
    pub fn get(&self, provider: &ProviderId) -> Option<&S3Credentials> {
        self.0.get(provider)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(ProviderId, S3Credentials)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (ProviderId, S3Credentials)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_accounts_and_no_secret() {
        let pair = S3Credentials::new("AKIA-CANARY".to_owned(), "SECRET-CANARY".to_owned()).with_session_token("TOKEN-CANARY".to_owned());
        let id = ProviderId::new("aws-main").unwrap();
        let all: Credentials = [(id, pair.clone())].into_iter().collect();
        for text in [format!("{pair:?}"), format!("{all:?}"), format!("{all:#?}")] {
            assert!(!text.contains("CANARY"), "{text}");
        }
        assert!(format!("{all:?}").contains("aws-main"));
    }
}

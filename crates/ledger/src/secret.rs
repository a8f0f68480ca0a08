//! Keys below the ledger key: keyed BLAKE3, one domain string per use.

use std::fmt;

use diaspore_block::key::LedgerKey;
use zeroize::Zeroize;

/// A derived 32-byte key that leaves no copy behind.
pub(crate) struct Secret([u8; 32]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Domain strings of the view.
pub(crate) struct ViewDomains {
    /// Ledger key -> key of one view.
    pub(crate) key: &'static [u8],
    /// View key -> XTS data key.
    pub(crate) cipher: &'static [u8],
    /// View key -> XTS tweak key.
    pub(crate) tweak: &'static [u8],
    /// View key -> check of the header page.
    pub(crate) header: &'static [u8],
    /// View key -> key of the value MACs.
    pub(crate) value: &'static [u8],
}

pub(crate) const VIEW_MAC: ViewDomains = ViewDomains {
    key: b"diaspore ledger view key v1",
    cipher: b"diaspore ledger view xts data v1",
    tweak: b"diaspore ledger view xts tweak v1",
    header: b"diaspore ledger view header v1",
    value: b"diaspore ledger view value v1",
};

/// Ledger key -> key check of the identity file.
pub(crate) const IDENTITY_CHECK: &[u8] = b"diaspore ledger identity v1";
/// Ledger key -> MAC of journal framing.
pub(crate) const FRAME_KEY: &[u8] = b"diaspore ledger frame v1";
/// Journal key -> key of one backup.
pub(crate) const BACKUP_KEY: &[u8] = b"diaspore ledger backup v1";

impl Secret {
    pub(crate) fn of(ledger: &LedgerKey) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(ledger.expose());
        let root = *hasher.update(b"diaspore ledger root v1").finalize().as_bytes();
        hasher.zeroize();
        Self(root)
    }

    /// The bare bytes, for sealing.
    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn hasher(&self, domain: &[u8]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // Domains are fixed strings of different lengths; the length keeps domain and input apart.
        hasher.update(&[u8::try_from(domain.len()).unwrap_or(u8::MAX)]).update(domain);
        hasher
    }

    pub(crate) fn child(&self, domain: &[u8], salt: &[u8]) -> Self {
        let mut hasher = self.hasher(domain);
        let child = *hasher.update(salt).finalize().as_bytes();
        hasher.zeroize();
        Self(child)
    }

    pub(crate) fn expand<const N: usize>(&self, domain: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        let mut hasher = self.hasher(domain);
        let mut stream = hasher.finalize_xof();
        stream.fill(&mut out);
        stream.zeroize();
        hasher.zeroize();
        out
    }

    /// First 16 bytes of the keyed hash of `input`. Here and in [`Secret::value_mac`] the state is not wiped: they run for every
    /// lookup, and the key itself stays in memory as long as the ledger is open.
    pub(crate) fn mac(&self, domain: &[u8], input: &[u8]) -> [u8; 16] {
        let mut out = [0; 16];
        self.hasher(domain).update(input).finalize_xof().fill(&mut out);
        out
    }

    /// MAC of a stored value, bound to its table and key.
    pub(crate) fn value_mac(&self, table: u8, key: &[u8], value: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let mut front = [0; 5];
        if let Some((first, rest)) = front.split_first_mut() {
            *first = table;
            rest.copy_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        hasher.update(&front).update(key).update(value);
        let mut out = [0; 16];
        hasher.finalize_xof().fill(&mut out);
        out
    }
}

//! Tenants, buckets and API keys.

use crate::codec::fields;
use crate::id::{BucketId, KeyVersion, PrincipalId, TenantId, Timestamp};

fields! {
    /// A tenant exists.
    pub struct TenantCreated {
        /// Its id.
        pub tenant: TenantId,
        /// Its name, unique in the deployment.
        pub name: String,
    }
}
fields! {
    /// A bucket exists.
    pub struct BucketCreated {
        /// Its id.
        pub bucket: BucketId,
        /// Its name, unique in the tenant.
        pub name: String,
        /// The tenant's key generation at that moment.
        pub key_version: KeyVersion,
    }
}
fields! {
    /// A bucket is gone.
    pub struct BucketDeleted {
        /// Its id.
        pub bucket: BucketId,
        /// Its name.
        pub name: String,
    }
}
fields! {
    /// An API key exists.
    pub struct ApiKeyCreated {
        /// Its id; its owner is the principal of what it does.
        pub id: PrincipalId,
        /// The tenant it acts for.
        pub tenant: TenantId,
        /// The operator's name for it.
        pub name: String,
        /// Keyed hash of its secret.
        pub verifier: [u8; 32],
        /// What it may do.
        pub scopes: Vec<String>,
        /// When it ends, if ever.
        pub expires: Option<Timestamp>,
    }
}
fields! {
    /// An API key is revoked.
    pub struct ApiKeyRevoked {
        /// Its id.
        pub id: PrincipalId,
    }
}

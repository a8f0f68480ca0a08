//! What happened around the data: settings, refusals, faults, the audit log itself.

use crate::codec::fields;
use crate::id::BlockId;

fields! {
    /// A provider was configured.
    pub struct ProviderConfigured {
        /// The operator's name of the account.
        pub provider: String,
        /// Its failure domain.
        pub domain: String,
        /// Whether the operator declared the domain against the preset.
        pub domain_declared: bool,
        /// What changed.
        pub what: String,
    }
}
fields! {
    /// A policy was set.
    pub struct PolicySet {
        /// Its name.
        pub profile: String,
        /// Its text.
        pub what: String,
    }
}
fields! {
    /// Something was refused.
    pub struct AccessDenied {
        /// What was asked.
        pub what: String,
        /// Refusals this record stands for.
        pub count: u64,
    }
}
fields! {
    /// Bytes failed verification.
    pub struct IntegrityFault {
        /// Whose.
        pub provider: String,
        /// What did not match.
        pub what: String,
        /// Which block, if it is known.
        pub block: Option<BlockId>,
        /// Faults this record stands for.
        pub count: u64,
    }
}
fields! {
    /// A provider failed.
    pub struct ProviderFault {
        /// Which.
        pub provider: String,
        /// How.
        pub what: String,
        /// Faults this record stands for.
        pub count: u64,
    }
}
fields! {
    /// Audit records were dropped under load.
    pub struct AuditDropped {
        /// How many.
        pub count: u64,
    }
}
fields! {
    /// The log was exported.
    pub struct AuditExported {
        /// First leaf.
        pub from: u64,
        /// One past the last leaf.
        pub to: u64,
    }
}

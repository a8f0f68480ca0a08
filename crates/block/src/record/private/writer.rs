//! What a writer says about itself and its predecessors.

use crate::codec::fields;
use crate::id::{Counter, Epoch, Hash32, IncarnationId, Seq};

fields! {
    /// What became of the predecessors.
    pub struct Decision {
        /// The incarnation this one follows; none for the first.
        pub predecessor: Option<(IncarnationId, Epoch)>,
        /// Last valid position of the predecessor.
        pub last_valid: Seq,
        /// Leaves of the log at that position.
        pub log_size: u64,
        /// Root of the log at that position.
        pub log_root: Hash32,
        /// Blocks carried over: position, and counter under the new incarnation.
        pub carried: Vec<(Seq, Counter)>,
        /// Incarnations that claimed but never decided.
        pub passed_over: Vec<IncarnationId>,
        /// Domains the operator declared lost.
        pub lost_declared: Vec<String>,
        /// Positions whose acknowledged data may have been lost.
        pub may_have_lost: Vec<Seq>,
    }
}
fields! {
    /// Positions an operator declared possibly lost.
    pub struct MayHaveLost {
        /// Which.
        pub seqs: Vec<Seq>,
        /// On whose word.
        pub reason: String,
    }
}
fields! {
    /// A new generation of the keyring.
    pub struct KeyringChanged {
        /// Its number.
        pub version: u64,
        /// Why.
        pub reason: String,
    }
}
fields! {
    /// The service started.
    pub struct ServiceStarted {
        /// Which incarnation.
        pub incarnation: IncarnationId,
        /// Which build.
        pub version: String,
    }
}
fields! {
    /// The service stopped in order.
    pub struct ServiceStopped {
        /// Which incarnation.
        pub incarnation: IncarnationId,
        /// Why.
        pub reason: String,
    }
}

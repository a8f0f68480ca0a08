//! diaspore-ledger

//! diaspore-policy

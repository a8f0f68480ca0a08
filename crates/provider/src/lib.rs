//! diaspore-provider

//! diaspore-server

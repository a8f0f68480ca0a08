//! diaspore-tests
